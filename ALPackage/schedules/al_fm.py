"""A thread per layer and batch, all joined at the end of every batch: the earlier design, as a baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from ..errors import StageError
from ..layer import LocalLayer
from ..stack import ALStack
from ..stage.batch import Batch, InPlaceGuard, PredictBatch, TrainBatch
from ..stage.snapshot import Snapshot
from ..stage.threads import WorkerThread, worker_settings
from ..stage.trace import Usage
from .schedule import FAILURE_DEADLINE, Schedule


class ALFM(Schedule):
    """A new thread per layer and batch for backward and update, all joined before the next batch.

    The forward passes, and all of a prediction, run on the caller's thread. Kept as the baseline that earlier code
    used.
    """

    name = "al-fm"

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        self._threads: list[WorkerThread] = []
        self._usages = [Usage(str(layer.device), [name]) for name, layer in stack.items()]

    def usage(self) -> list[Usage]:
        """Return how much time each layer's work took in training; the rest went into waiting for the others."""
        return self._usages

    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        waiting = time.perf_counter()
        for item in items:
            if isinstance(item, Snapshot):
                yield self._take_snapshot(item)
                waiting = time.perf_counter()
                continue
            waited = time.perf_counter() - waiting
            failures: list[StageError] = []
            workers = self._threads = []  # on the schedule too, so that `_abort` finds them
            # Where one of these fails, `_abort` joins the workers.
            for (name, layer), usage in islice(zip(self.stack.items(), self._usages, strict=True), item.layers):
                start = time.perf_counter()
                try:
                    if isinstance(item, PredictBatch):
                        self._step.infer(name, layer, item)
                        continue
                    assert isinstance(item, TrainBatch)
                    self._step.forward(name, layer, item)
                # A GeneratorExit that a layer raises must not pass for the end of this generator.
                except (Exception, GeneratorExit) as error:
                    raise StageError(name, item.number, error) from error
                usage.batches += 1
                usage.layer_batches[name] += 1
                usage.idle += waited
                usage.no_data += waited
                _add_busy(usage, name, time.perf_counter() - start)
                worker = WorkerThread(
                    self._step.caller.worker(),
                    f"al-{name}",
                    (self._work, name, layer, item.number, item.guard, usage, failures, _current_stream(layer)),
                )
                workers.append(worker)  # before it starts: Ctrl-C in between would leave a thread that nobody joins
                worker.start()
            # The barrier that the continuous schedule does without.
            for worker in workers:
                worker.finished()
            if failures:
                raise failures[0]
            yield item
            waiting = time.perf_counter()

    def _abort(self) -> None:
        deadline = time.monotonic() + FAILURE_DEADLINE
        finished = [worker.finished(max(0.0, deadline - time.monotonic())) for worker in self._threads]
        if all(finished):  # else a layer is still at work on its batch
            super()._abort()

    def _work(
        self,
        name: str,
        layer: LocalLayer,
        number: int,
        guard: InPlaceGuard | None,
        usage: Usage,
        failures: list[StageError],
        stream: Any,
    ) -> None:
        """Run one layer's backward and update on this thread; append to `failures` what fails."""
        start = time.perf_counter()
        try:
            with worker_settings(layer.device, self.threads, stream), self._step.span(name, number, "backward"):
                layer.backward_and_update()
            # The next layer may have read its input already, and would not see what the update has just changed.
            if guard is not None:
                guard.check()
        except BaseException as error:  # a thread has no caller that could catch it
            failures.append(StageError(name, number, error))
        _add_busy(usage, name, time.perf_counter() - start)


def _add_busy(usage: Usage, name: str, seconds: float) -> None:
    usage.busy += seconds
    usage.layer_busy[name] += seconds


def _current_stream(layer: LocalLayer) -> Any:
    """Return the stream that the calling thread uses on the layer's GPU; None on the CPU."""
    return torch.cuda.current_stream(layer.device) if layer.device.type == "cuda" else None
