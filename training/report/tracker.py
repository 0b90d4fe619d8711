"""What a tracker is: something outside of the run that is told about every epoch, such as TensorBoard or wandb."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .columns import loss_kind
from .utilization import Utilization


@dataclass(frozen=True, kw_only=True)
class TrackedTurn:
    """A turn of a method, which is one run for a tracker."""

    dataset: str
    model: str
    method: str
    turn: int
    config: dict[str, Any]
    """The resolved configuration and what else tells runs apart, as plain values."""

    @property
    def name(self) -> str:
        """How the run is called."""
        return f"{self.dataset}_{self.model}_{self.method}_turn{self.turn}"


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """What is known after an epoch. Accuracies are in percent, times in seconds."""

    epoch: int
    step: int
    """Optimizer steps of the turn so far, whichever process took them."""
    losses: Mapping[str, Mapping[str, float]]
    """Means by layer and name; a network with one loss is the layer ""."""
    accuracies: Mapping[str, float]
    """Of train, val and test, at the full depth."""
    by_depth: Sequence[float]
    """Test accuracy with the first layers alone; empty where there is one depth."""
    train_time: float
    """Cumulative in the turn."""
    samples_per_second: float
    utilization: Utilization | None

    def losses_by_tag(self) -> dict[str, float]:
        """Return the losses by "<loss>/<layer>", or by the loss alone where it belongs to no layer."""
        return {
            "/".join(filter(None, (loss_kind(loss), layer))): value
            for layer, values in self.losses.items()
            for loss, value in values.items()
        }

    def busy_by_tag(self) -> dict[str, float]:
        """Return the share of the time that each worker was busy, in percent; workers on one device stay apart."""
        rows = self.utilization.rows if self.utilization else ()
        names = [re.sub(r"\W", "_", row.device) for row in rows]
        return {f"busy/{number}_{name}": row.busy for number, (name, row) in enumerate(zip(names, rows, strict=True))}


class Tracker(Protocol):
    """For each turn: `begin`, `epoch` after every epoch, and `finish`, also if it ends early. `close` at the very end.

    Any of them may raise anything; `Trackers` sees to it that the run does not suffer.
    """

    option: str
    """What the user wrote to have it."""

    def begin(self, turn: TrackedTurn) -> None:
        """Get ready for the epochs of a turn."""

    def epoch(self, figures: EpochFigures) -> None:
        """Take the figures of an epoch."""

    def finish(self) -> None:
        """End the turn."""

    def close(self) -> None:
        """End the command."""
