"""In which order, and under which titles, the keys of a task are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from models import registry

from .objectives import FLAT, dotted
from .overrides import settings_at
from .schema import TASKS, Task


@dataclass(frozen=True)
class Section:
    """Keys that belong together."""

    title: str
    keys: tuple[str, ...]
    """As `--set` takes them: those of an objective in `objectives` have dots."""


def sections(task: Task) -> list[Section]:
    """Return all keys of a task in sections: training, devices, data, then per model and per objective."""
    keys: dict[str, list[str]] = {"training": [], "devices": [], "data": []}
    placed: set[str] = set()

    def place(title: str, names: list[str]) -> None:
        new = [name for name in names if name not in placed]
        placed.update(new)
        keys.setdefault(title, []).extend(new)

    for kind in reversed(TASKS[task].__mro__):
        if "section" in vars(kind):
            place(vars(kind)["section"], list(kind.model_fields))  # type: ignore[attr-defined]
    models = registry.models(task)
    # Keys that several models have come first, under all their names.
    names = {
        key: [entry.name for entry in models if key in entry.settings.model_fields]
        for entry in models
        for key in entry.settings.model_fields
    }
    for key, having in sorted(names.items(), key=lambda item: -len(item[1])):
        place(f"model {', '.join(having)}" if len(having) == 1 else f"models {', '.join(having)}", [key])
    for objective in registry.objectives():
        own = objective.settings_of(task)
        own_keys = list(own.model_fields) if objective.name == FLAT else list(_leaves(own, dotted(objective.name)))
        place(f"objective {objective.name}", own_keys)
    return [Section(title, tuple(found)) for title, found in keys.items() if found]


def _leaves(kind: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the dotted names of the keys of settings that stand at `prefix`, and of settings within them."""
    for key in kind.model_fields:
        inner = settings_at(kind, [key])
        yield from _leaves(inner, f"{prefix}.{key}") if inner else [f"{prefix}.{key}"]
