"""A module with wandb's `init`, `log` and `finish` as a tracker."""

from __future__ import annotations

from copy import deepcopy
from types import ModuleType

from .tracker import EpochFigures, TrackedTurn

#: Trackers group runs by project; what tells ours apart is in their names and configs.
PROJECT = "associated-learning"


class ModuleTracker:
    """Starts a run of the module for every turn, and logs one dict per epoch at the optimizer step that ended it.

    One dict and one step axis, because wandb drops what comes at a step that it has left behind.
    """

    def __init__(self, option: str, module: ModuleType) -> None:
        self.option = option
        # Not its functions: wandb replaces its `log` when a run begins.
        self._module = module

    def begin(self, turn: TrackedTurn) -> None:
        """Call `init`."""
        self._module.init(project=PROJECT, name=turn.name, config=deepcopy(turn.config))

    def epoch(self, figures: EpochFigures) -> None:
        """Call `log`."""
        self._module.log(scalars(figures), step=figures.step)

    def finish(self) -> None:
        """Call `finish`."""
        self._module.finish()

    def close(self) -> None:
        """Every turn was finished on its own."""


def scalars(figures: EpochFigures) -> dict[str, float]:
    """Return the figures of an epoch by name; what is before a slash groups them."""
    values = {"epoch": figures.epoch, "train_time": figures.train_time, **figures.losses_by_tag()}
    values |= {f"accuracy/{split}": value for split, value in figures.accuracies.items()}
    values |= {f"accuracy_by_depth/{depth}": value for depth, value in enumerate(figures.by_depth, start=1)}
    if figures.samples_per_second:  # a resumed run may have nothing to time
        values["samples_per_second"] = figures.samples_per_second
    if figures.utilization is not None:
        values["utilization"] = figures.utilization.utilization
    return values | figures.busy_by_tag()
