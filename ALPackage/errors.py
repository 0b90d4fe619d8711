"""What can go wrong in a layer or with a placement."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import torch

#: What a user's line is not in: torch, and this program's packages.
_LIBRARIES = {
    Path(torch.__file__).parent,
    *(Path(__file__).parents[1] / package for package in ("ALPackage", "models", "training")),
}


class StageError(RuntimeError):
    """A layer failed on a batch; the original exception is the `__cause__`. It can be pickled.

    Args:
        layer: The layer's name, or "loader" (the iterable of batches), "target" (the stack's) or "lr" (the function
            for the learning rate), which fail while a batch is made.
        batch: The batch's number; None if the worker failed before its first batch.
        cause: The exception that the layer raised.
        rank: Where it happened, if in another process than the caller's.

    Example:
        >>> error = StageError("conv_2", 7, ValueError("expected 3 channels"))
        >>> print(error)
        layer 'conv_2' failed on batch 7: ValueError: expected 3 channels
        >>> error.layer, error.batch
        ('conv_2', 7)
    """

    def __init__(self, layer: str, batch: int | None, cause: BaseException, rank: int | None = None) -> None:
        when = "before its first batch" if batch is None else f"on batch {batch}"
        who = layer if layer in ("loader", "target", "lr") else f"layer {layer!r}"
        where = "" if rank is None else f" in rank {rank}"
        super().__init__(f"{who} failed {when}{where}: {type(cause).__name__}: {words_of(cause)}")
        self.layer = layer
        self.batch = batch
        self.rank = rank
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process boundary: with the cause if it can be pickled, else with its type's name and its words."""
        cause = self.__cause__
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:  # a user's exception may fail in any way while it is pickled
            cause = RuntimeError(f"{type(cause).__name__}: {words_of(cause)}")
        return _rebuild, (str(self), self.layer, self.batch, cause, self.rank)


def words_of(cause: BaseException | None) -> str:
    """Return what an exception says, also if it fails to."""
    try:
        return str(cause)
    except Exception:  # an exception that cannot describe itself must still be reported
        return "(no description: its __str__ failed)"


def place_of(error: BaseException) -> str:
    """Return " (file, line N)", the last place of the user's that an exception has passed; "" if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _LIBRARIES & {*Path(frame.filename).parents}]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _rebuild(message: str, layer: str, batch: int | None, cause: BaseException, rank: int | None) -> StageError:
    error = StageError(layer, batch, cause, rank)
    error.args = (message,)
    return error


class RankError(RuntimeError):
    """A rank of a distributed run is gone, or has ended the run; the one-line message says which rank and why.

    `silent`: the rank, if it has given no sign of life and may still exist. `mistake`: whether it is one of the user's,
    and not a fault of the program.

    Example:
        >>> print(RankError("rank 1 (node-7, conv_2) has given no sign of life for 5 s", silent=1))
        rank 1 (node-7, conv_2) has given no sign of life for 5 s
    """

    def __init__(self, message: str, silent: int | None = None, *, mistake: bool = False) -> None:
        super().__init__(message)
        self.silent = silent
        self.mistake = mistake


class PlacementError(ValueError):
    """A device list does not fit the model or the machine; the one-line message says how to fix it."""


class UnfitLayersError(ValueError):
    """Layers that a schedule cannot train as they are; the one-line message names the layer and the remedy."""


class LayerError(RuntimeError):
    """A layer that breaks the contract of `LocalLayer`; the message is one line and says the remedy."""
