"""One layer after another: the reference that the other schedules are compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from ..errors import StageError
from ..stack import ALStack
from ..stage.batch import Batch, PredictBatch, TrainBatch
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from .schedule import Schedule


class Sequential(Schedule):
    """One thread, one layer after another: the reference twin of the other schedules."""

    name = "sequential"
    concurrent = False

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        self._usage = Usage(", ".join(dict.fromkeys(map(str, stack.devices))), stack.names)

    def usage(self) -> list[Usage]:
        """Return how the one worker has spent its time in training; the rest of it went into waiting for batches."""
        return [self._usage]

    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        waiting = time.perf_counter()
        for item in items:
            if isinstance(item, Snapshot):
                yield self._take_snapshot(item)
                waiting = time.perf_counter()
                continue
            start = time.perf_counter()
            idle = start - waiting
            for name, layer in islice(self.stack.items(), item.layers):
                try:
                    if isinstance(item, PredictBatch):
                        self._step.infer(name, layer, item)
                        continue
                    assert isinstance(item, TrainBatch)
                    self._step.forward(name, layer, item)
                    # As on a thread of its own, whatever mode the caller is in.
                    with (
                        self._step.span(name, item.number, "backward"),
                        torch.enable_grad(),
                        self._step.autocast.outside(),
                    ):
                        layer.backward_and_update()
                # A GeneratorExit that a layer raises must not pass for the end of this generator.
                except (Exception, GeneratorExit) as error:
                    raise StageError(name, item.number, error) from error
                stop = time.perf_counter()
                self._usage.add(name, busy=stop - start, copy=0.0, idle=idle, no_data=idle)
                start, idle = stop, 0.0
            yield item
            waiting = time.perf_counter()
