"""Scalars for TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UsageError, reason
from .columns import loss_kind
from .utilization import Utilization


class TensorBoardWriter:
    """Writes scalars into `directory`; a context manager.

    Raises UsageError if tensorboard is not installed or nothing can be written there.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer: Any = SummaryWriter(str(directory))
        except OSError as error:
            raise UsageError(
                f"--tensorboard {directory}: cannot be written ({reason(error)}); name another folder"
            ) from None

    def losses(self, method: str, turn: int, step: int, losses: Mapping[str, Mapping[str, float]]) -> None:
        """Write the mean losses of an epoch, by layer and name, at the optimizer step that ended it."""
        for layer, values in losses.items():
            for loss, value in values.items():
                # A network with one loss has no layer to name.
                tag = "/".join(filter(None, (_run(method, turn), loss_kind(loss), layer)))
                self._writer.add_scalar(tag, value, step)

    def epoch(
        self,
        method: str,
        turn: int,
        epoch: int,
        *,
        accuracies: dict[str, float],
        samples_per_second: float,
        utilization: Utilization | None,
    ) -> None:
        """Write what was measured after an epoch: accuracies in percent, and the workers' use of time."""
        run = _run(method, turn)
        for name, value in accuracies.items():
            self._writer.add_scalar(f"{run}/accuracy/{name}", value, epoch)
        self._writer.add_scalar(f"{run}/samples_per_second", samples_per_second, epoch)
        for number, row in enumerate(utilization.rows if utilization else ()):
            self._writer.add_scalar(f"{run}/busy/{number}_{row.device.replace(':', '_')}", row.busy, epoch)
        self._writer.flush()

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what is still buffered."""
        self._writer.close()


def _run(method: str, turn: int) -> str:
    return f"{method}/turn_{turn}"
