"""Scalars for TensorBoard, where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError, reason
from .tracker import EpochFigures, TrackedTurn


class TensorBoard:
    """Writes scalars into `directory`: losses by optimizer step, everything else by epoch.

    `option`: what the user wrote to get it. Raises UsageError if tensorboard is not installed or nothing can be written
    there.
    """

    def __init__(self, directory: Path, option: str) -> None:
        self.option, self._run = option, ""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(f"{option} needs the package tensorboard: pip install tensorboard") from None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer: Any = SummaryWriter(str(directory))
        except OSError as error:
            where = "" if str(directory) in option else f" {directory}"
            raise UsageError(f"{option}:{where} cannot be written ({reason(error)}); name another folder") from None

    def begin(self, turn: TrackedTurn) -> None:
        """Have what follows stand below the name of the turn."""
        self._run = f"{turn.method}/turn_{turn.turn}"

    def epoch(self, figures: EpochFigures) -> None:
        """Write the figures of an epoch, so that they can be read at once."""
        for tag, value in figures.losses_by_tag().items():
            self._writer.add_scalar(f"{self._run}/{tag}", value, figures.step)
        measured = {f"accuracy/{split}": value for split, value in figures.accuracies.items()}
        measured |= {"samples_per_second": figures.samples_per_second, **figures.busy_by_tag()}
        for tag, value in measured.items():
            self._writer.add_scalar(f"{self._run}/{tag}", value, figures.epoch)
        self._writer.flush()

    def finish(self) -> None:
        """Nothing: all turns are in one folder, and what was written can be read."""

    def close(self) -> None:
        """Write what is still buffered."""
        self._writer.close()
