"""The schedules: in which order, and on which threads, the layers of a stack train.

All three compute the same numbers, bit for bit. Layer l on batch t needs only the detached pair (x, y) that
layer l-1 handed on for batch t, and its own weights after batch t-1; nothing flows downward. Time runs right,
F is forward and B is backward and update:

    sequential   layer 1  F0B0      F1B1                 the reference: one thread
                 layer 2      F0B0      F1B1
    al-fm        layer 1  F0B0      F1B1                 a thread per layer and batch for B, joined at the end
                 layer 2    F0B0      F1B1               of every batch (the earlier design, as a baseline)
    continuous   layer 1  F0B0F1B1F2B2F3B3               [1] a worker per stage, started once
                 layer 2    F0B0F1B1F2B2F3B3             [2] a bounded channel between neighbours; no barrier

What makes them equal: each layer sees the batches in order; its forward, backward and update of a batch are not
interleaved with another batch's; number and learning rate travel with the batch; random streams are derived
from (seed, layer, number); and every schedule uses the same number of intra-op threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from .base import AL
from .continuous import FAILURE_DEADLINE, QUEUE_DEPTH, Continuous
from .randomness import refuse_shared_randomness
from .schedule import Schedule
from .snapshot import Snapshot
from .stack import ALStack
from .step import Batch, LocalLosses, Seal, StageError
from .threads import WorkerThread, worker_settings
from .trace import Usage

__all__ = [
    "ALFM",
    "QUEUE_DEPTH",
    "SCHEDULES",
    "Continuous",
    "LocalLosses",
    "Schedule",
    "Sequential",
    "Snapshot",
    "StageError",
    "make_schedule",
]


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


class ALFM(Schedule):
    """A new thread per layer and batch for backward and update, all joined before the next batch.

    The forward passes, and all of a prediction, run on the caller's thread. Kept as the baseline that earlier codes
    used.
    """

    name = "al-fm"

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        refuse_shared_randomness(stack, self.name)
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
        layer: AL,
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


SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Sequential, ALFM, Continuous)}


def make_schedule(name: str, stack: ALStack, **options: Any) -> Schedule:
    """Return the schedule of that name for `stack`; options as for its class. Raises ValueError."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule: got {name!r}; expected one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](stack, **options)


def _current_stream(layer: AL) -> Any:
    """Return the stream that the calling thread uses on the layer's GPU; None on the CPU."""
    return torch.cuda.current_stream(layer.device) if layer.device.type == "cuda" else None


def _awaited(batches: Iterator[Batch | Snapshot], usage: Usage) -> Iterator[Batch | Snapshot]:
    """Iterate over the batches and add the time that making them takes to `usage`."""
    start = time.perf_counter()
    for batch in batches:
        if isinstance(batch, Batch) and batch.train:
            usage.wait_input += time.perf_counter() - start
        yield batch
        start = time.perf_counter()
