"""The schedules: in which order, and on which threads, the layers of a stack train.

All three compute the same numbers, bit for bit. Layer l on batch t needs only the detached pair (x, y) that
layer l-1 handed on for batch t, and its own weights after batch t-1; nothing flows downward. Time runs right,
F is forward and B is backward and update:

    sequential   layer 1  F0B0      F1B1                 the reference: one thread
                 layer 2      F0B0      F1B1
    al-fm        layer 1  F0B0      F1B1                 a thread per layer and batch for B, joined at the end
                 layer 2    F0B0      F1B1               of every batch (the earlier design, as a baseline)
    continuous   layer 1  F0B0F1B1F2B2F3B3               [1] a worker per stage, started once
                 layer 2    F0B0F1B1F2B2F3B3             [2] a bounded channel between neighbors; no barrier

What makes them equal: each layer sees the batches in order; its forward, backward and update of a batch are not
interleaved with another batch's; number and learning rate travel with the batch; random streams are derived
from (seed, layer, number); and every schedule uses the same number of intra-op threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ..errors import StageError
from ..stack import ALStack
from ..stage.batch import Batch
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from .schedule import Schedule


class Sequential(Schedule):
    """One thread, one layer after another: the reference that the other schedules are compared with."""

    name = "sequential"

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        self._usage = Usage(", ".join(dict.fromkeys(map(str, stack.devices))), stack.names)

    def usage(self) -> list[Usage]:
        """Return how the one worker has spent its time in training; the rest of it went into waiting for batches."""
        return [self._usage]

    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        for batch in _awaited(items, self._usage):
            if isinstance(batch, Snapshot):
                yield self._taken(batch)
                continue
            start = time.perf_counter()
            for name, layer in self.stack.items():
                try:
                    if batch.train:
                        self._step.forward(name, layer, batch)
                        self._step.backward(name, layer, batch.number)
                    else:
                        self._step.infer(name, layer, batch)
                except (Exception, GeneratorExit) as error:
                    raise StageError(name, batch.number, error) from error
            if batch.train:
                self._usage.busy += time.perf_counter() - start
                self._usage.batches += 1
            yield batch


def _awaited(batches: Iterator[Batch | Snapshot], usage: Usage) -> Iterator[Batch | Snapshot]:
    """Iterate over the batches and add the time that making them takes to `usage`."""
    start = time.perf_counter()
    for batch in batches:
        if isinstance(batch, Batch) and batch.train:
            usage.wait_input += time.perf_counter() - start
        yield batch
        start = time.perf_counter()
