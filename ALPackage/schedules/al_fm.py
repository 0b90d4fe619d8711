"""A thread per layer and batch, all joined at the end of every batch: the earlier design, as a baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import StageError
from ..layer import LocalLayer
from ..stack import ALStack
from ..stage.batch import Batch, Seal
from ..stage.snapshot import Snapshot
from ..stage.threads import WorkerThread, worker_settings
from ..stage.trace import Usage
from .continuous import FAILURE_DEADLINE
from .schedule import Schedule


class ALFM(Schedule):
    """A new thread per layer and batch for backward and update, all joined before the next batch.

    The forward passes, and all of a prediction, run on the caller's thread. Kept as the baseline that earlier codes
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
        for batch in items:
            if isinstance(batch, Snapshot):
                yield self._taken(batch)
                continue
            failures: list[StageError] = []
            workers = self._threads = []
            # Where one of these fails, `_abort` joins the workers.
            for (name, layer), usage in zip(self.stack.items(), self._usages, strict=True):
                start = time.perf_counter()
                try:
                    if not batch.train:
                        self._step.infer(name, layer, batch)
                        continue
                    self._step.forward(name, layer, batch)
                except (Exception, GeneratorExit) as error:
                    raise StageError(name, batch.number, error) from error
                usage.busy += time.perf_counter() - start
                usage.batches += 1
                worker = WorkerThread(
                    self._work,
                    f"al-{name}",
                    (name, layer, batch.number, batch.sealed, usage, failures, _current_stream(layer)),
                )
                workers.append(worker)  # before it starts, or Ctrl-C between the two would leave it to itself
                worker.start()
            for worker in workers:
                worker.ended()
            if failures:
                raise failures[0]
            yield batch

    def _abort(self) -> None:
        deadline = time.monotonic() + FAILURE_DEADLINE
        ended = [worker.ended(max(0.0, deadline - time.monotonic())) for worker in self._threads]
        if all(ended):  # else a layer is still at work on its batch
            super()._abort()

    def _work(
        self,
        name: str,
        layer: LocalLayer,
        number: int,
        sealed: Seal | None,
        usage: Usage,
        failures: list[StageError],
        stream: Any,
    ) -> None:
        """Run one layer's backward and update on this thread and keep what failed."""
        start = time.perf_counter()
        try:
            with worker_settings(layer.device, self.threads, stream):
                self._step.backward(name, layer, number)
            if sealed is not None:
                sealed.verify()
        except BaseException as error:
            failures.append(StageError(name, number, error))
        usage.busy += time.perf_counter() - start


def _current_stream(layer: LocalLayer) -> Any:
    """Return the stream that the calling thread uses on the layer's GPU; None on the CPU."""
    return torch.cuda.current_stream(layer.device) if layer.device.type == "cuda" else None
