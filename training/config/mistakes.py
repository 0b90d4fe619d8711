"""Put a mistake in a configuration into one line: where it is, what was found, what was expected.

The expectation is put into words from the schema, so it cannot drift from what is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from models.settings import expected, shown

from ..errors import closest, remedy
from .json_file import IN_JSON
from .objectives import FLAT, OBJECTIVES, dotted, nested
from .overrides import settings_at
from .schema import TASKS, Task, schema


class Origin:
    """Where the values of a configuration come from."""

    def __init__(self) -> None:
        self._places: list[tuple[tuple[str, ...], str]] = []

    def note(self, path: Sequence[str], place: str) -> None:
        """Remember that what the path leads to, and all below it, comes from this place."""
        self._places.append((tuple(path), place))

    def of(self, path: Sequence[str]) -> str | None:
        """Return the last place that had a say in what the path leads to, or in a part of it; None for a default."""
        for known, place in reversed(self._places):
            common = min(len(known), len(path))
            if known[:common] == tuple(path[:common]):
                return place
        return None


def explain(error: ValidationError, task: Task, values: Mapping[str, Any], origin: Origin) -> str:
    """Return one line about the first mistake."""
    first = error.errors()[0]
    facts = first.get("ctx", {})
    if first["type"] == "order":
        places = dict.fromkeys(place for key in (facts["low"], facts["high"]) if (place := origin.of([key])))
        return f"{' with '.join(places)}: {first['msg']}"
    if not first["loc"]:  # a settings class of a plug-in may refuse a combination
        return str(facts.get("error", first["msg"]))
    whole = schema(task)
    path, owner = _place(first["loc"], whole)
    key, place = ".".join(path), origin.of(path) or "default"
    if path[-1] not in owner.model_fields:
        told = _unknown_setting(path, owner) if len(path) > 1 else _unknown_key(key, task, values)
        return f"{place}: {told}"
    if first["type"] == "value_error":
        return f"{place}: {key}: {facts['error']}"
    got: Any = values
    for name in path:
        got = got.get(name)
    wanted = expected(owner, path[-1])
    return f"{place}: {key}: got {shown(got)}; expected {wanted}{_hint(got, wanted, whole.model_fields)}"


def _place(loc: Sequence[int | str], whole: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Return the names that lead to a mistake, and the class that has, or should have, the last one as a field."""
    owner, path = whole, [str(loc[0])]
    for name in loc[1:]:
        inner = settings_at(owner, path[-1:])
        if inner is None:  # what follows is within the value
            break
        owner = inner
        path.append(str(name))
    return path, owner


def _unknown_key(key: str, task: Task, values: Mapping[str, Any]) -> str:
    """Say what to write in place of a key that the task does not have."""
    if isinstance(values.get("config"), dict):
        return (
            'is a file of results: put its "config" into a file of its own, without limit_train, '
            "vocabulary and data_digest"
        )
    if key in [entry.name for entry in nested()]:
        return f'"{key}" is not a key: the settings of this objective stand in "{OBJECTIVES}": write {dotted(key)}'
    if key == FLAT:
        return f'"{key}" is not a key: the settings of this objective stand at the top level: write them without {key}'
    owners = [entry.name for entry in nested() if key in entry.settings_of(task).model_fields]
    if owners:
        names = f"s {', '.join(owners)}" if len(owners) > 1 else f" {owners[0]}"
        right = f"{dotted(owners[0], key)}{', or another of them' * (len(owners) > 1)}"
        return f'"{key}" is a key of the objective{names}: write {right}'
    other = next((name for name in TASKS if key in schema(name).model_fields), None)
    if other:
        return f'"{key}" is a key of the {other} task, not of the {task} task: leave it out'
    return f'"{key}" is not a key: {remedy(key, schema(task).model_fields)}'


def _unknown_setting(path: Sequence[str], owner: type[BaseModel]) -> str:
    """Say what to write in place of a name that an object of settings does not have."""
    *before, name = path
    wrong, known = f'"{".".join(path)}" is not a key', [".".join([*before, right]) for right in owner.model_fields]
    if path == [OBJECTIVES, FLAT]:
        return f"{wrong}: the settings of this objective stand at the top level: write them without {dotted(FLAT)}"
    if not known:
        none = (
            "name the plug-in of the objective with --plugin"
            if len(path) == 2
            else "this objective has no settings: leave it out"
        )
        return f"{wrong}: {none}"
    close = closest(name, owner.model_fields)
    return (
        f'{wrong}: did you mean "{dotted(*before[1:], close)}"?'
        if close
        else f"{wrong}: the right ones are {', '.join(known)}"
    )


def _hint(value: Any, wanted: str, known: Collection[str]) -> str:
    """Return how to write the value where it is right but for its form."""
    if isinstance(value, float) and value.is_integer() and "whole number" in wanted:
        return f": write {int(value)}"
    if not isinstance(value, str):
        return ""
    if value in IN_JSON and IN_JSON[value] in wanted:
        return f": write {IN_JSON[value]}"
    if "number" in wanted and re.fullmatch(r"-?\d+,\d+", value):
        return ": write a point in place of the comma"
    other = re.search(r"[\s,;](\w+)=", value)
    if other and other[1] in known:
        return "; give every key a --set of its own"
    if value.startswith("{"):
        return r"; where the shell has taken the quotation marks away, write \" for each"
    with suppress(ValueError):
        if isinstance(json.loads(value), (int, float, list, dict)):
            return ": write it without the quotation marks"
    return ""
