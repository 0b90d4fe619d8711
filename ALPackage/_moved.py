"""Earlier import paths, such as `from ALPackage.losses import OneHot`: each looks its names up where they are now.

Nothing is imported before a name is asked for, and objects pickled under an earlier path can still be loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Earlier module -> the modules that its names are in now, all relative to the package.
MOVED: dict[str, tuple[str, ...]] = {
    "losses": ("objectives.association", "objectives.codes"),
    "pipeline": ("schedules.by_name", "schedules.sequential", "schedules.al_fm", "schedules.continuous", "stage.batch"),
    "continuous": ("schedules.continuous",),
    "schedule": ("schedules.schedule", "stage.batch"),
    "worker": ("stage.worker",),
    "trace": ("stage.trace",),
    "snapshot": ("stage.snapshot",),
    "threads": ("stage.threads",),
    "finite": ("nan_guard",),
    "placement.devices": ("devices", "errors"),
}
#: Earlier name -> the name now.
RENAMED = {"ClassCodes": "OnCodes", "al_layers": "local_layers"}


class _Moved(ModuleType):
    """A module that looks like an earlier one and holds nothing of its own."""

    def __init__(self, name: str, targets: tuple[str, ...]) -> None:
        super().__init__(name, f"An earlier import path; its names are in {', '.join(targets)} now.")
        self.__spec__ = ModuleSpec(name, None)
        self._targets = targets

    def __getattr__(self, name: str) -> Any:
        modules = [import_module(f"{__package__}.{target}") for target in self._targets]
        if name == "__all__":  # for `from .. import *`
            public = {key for module in modules for key in vars(module) if not key.startswith("_")}
            return sorted(public | {old for old, new in RENAMED.items() if new in public})
        for module in modules:
            found = getattr(module, RENAMED.get(name, name), None)
            if found is not None:
                return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; see {', '.join(self._targets)}")


def register(package: ModuleType) -> None:
    """Make the earlier modules importable, and attributes of the package."""
    for path, targets in MOVED.items():
        alias = sys.modules[f"{package.__name__}.{path}"] = _Moved(f"{package.__name__}.{path}", targets)
        parent, _, name = path.rpartition(".")
        setattr(import_module(f"{package.__name__}.{parent}") if parent else package, name, alias)
