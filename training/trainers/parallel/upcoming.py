"""The batch of any step, for a rank that is told the step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

Batch = tuple[Any, Tensor]


class Upcoming:
    """The batches of all epochs, by step. Those of steps in a row are made one after the other.

    `epoch`: returns the batches of an epoch, the first of which is 1, without those that are done.
    `per_epoch`: how many there are.
    """

    def __init__(self, epoch: Callable[[int, int], Iterable[Batch]], per_epoch: int) -> None:
        self._epoch, self._per_epoch = epoch, per_epoch
        self._rest: Iterator[Batch] = iter(())
        #: Of the batch that `_rest` makes next.
        self._step = -1
        self._made: tuple[int, Batch] | None = None

    def take(self, step: int) -> Batch:
        """Return the batch of a step, the first of which is 0."""
        self.prepare(step)
        assert self._made is not None
        batch = self._made[1]
        self._made = None
        return batch

    def prepare(self, step: int) -> None:
        """Make the batch of a step, unless it is made."""
        if self._made is not None and self._made[0] == step:
            return
        epoch, done = divmod(step, self._per_epoch)
        if step != self._step or not done:
            self._rest = iter(self._epoch(epoch + 1, done))
        self._made, self._step = (step, next(self._rest)), step + 1
