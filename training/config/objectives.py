"""The settings of the objectives within the configuration: an object for each, by its name, in `objectives`.

So two objectives may each have a temperature. The keys of AL alone stand at the top level, where users' files have
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, create_model

from models.registry import ObjectiveEntry, objectives
from models.settings import Settings, Task

from ..errors import ConfigError

OBJECTIVES = "objectives"
FLAT = "al"


class Objectives(Settings):
    """The settings of all objectives but AL, by name."""

    model_config = ConfigDict(protected_namespaces=())  # an objective may have any name


def nested() -> list[ObjectiveEntry]:
    """Return the objectives whose settings stand in `objectives`."""
    return [entry for entry in objectives() if entry.name != FLAT]


def objectives_kind(task: Task, entries: Sequence[ObjectiveEntry]) -> type[Objectives]:
    """Return the class of `objectives`, with a field per objective. Raises ConfigError for a key without a default."""
    fields: dict[str, Any] = {}
    for entry in entries:
        if entry.name == FLAT:
            continue
        kind = entry.settings_of(task)
        for key, field in kind.model_fields.items():
            if field.is_required():
                raise ConfigError(f'"{key}" of the objective {entry.name} has no default: give it one')
        fields[entry.name] = (kind, kind())
    return create_model("AllObjectives", __base__=Objectives, __module__=__name__, **fields)


def dotted(*path: str) -> str:
    """Return the name of a key in `objectives`, as `--set` and messages have it."""
    return ".".join([OBJECTIVES, *path])


def own(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return a configuration, as plain values, without the settings of other objectives than `method`."""
    values = {key: value for key, value in config.items() if key != OBJECTIVES}
    if method in config.get(OBJECTIVES, {}):
        values[OBJECTIVES] = {method: config[OBJECTIVES][method]}
    return values


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, as plain values, with the settings of every objective under their dotted names.

    What is not in its place, in a file that somebody has changed, stays as it is.
    """
    values, given = dict(config), config.get(OBJECTIVES)
    if not isinstance(given, Mapping) or not all(isinstance(settings, Mapping) for settings in given.values()):
        return values
    del values[OBJECTIVES]
    return values | {dotted(name, key): value for name, settings in given.items() for key, value in settings.items()}
