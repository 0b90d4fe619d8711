"""The schedules: in which order, and on which threads, the layers of a stack train.

All three compute the same numbers, bit for bit. Layer l on batch t needs only the detached pair (x, y) that
layer l-1 handed on for batch t, and its own weights after batch t-1; nothing flows downward. Time runs right,
F is forward and B is backward and update:

    sequential   layer 1  F0B0      F1B1                 the reference: one thread
                 layer 2      F0B0      F1B1
    al-fm        layer 1  F0B0      F1B1                 a thread per layer and batch for B, joined at the end
                 layer 2    F0B0      F1B1               of every batch (the earlier design, as a baseline)
    continuous   layer 1  F0B0F1B1F2B2F3B3               [1] a worker per stage, started once
                 layer 2      F0B0F1B1F2B2F3B3           [2] a bounded channel between neighbours; no barrier

What makes them equal: each layer sees the batches in order; its forward, backward and update of a batch are not
interleaved with another batch's; number and learning rate travel with the batch; random streams are derived
from (seed, layer, number); and every schedule uses the same number of intra-op threads.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import AL, LearningRate
from .channel import Channel, Closed
from .randomness import enter_stream, refuse_shared_randomness
from .stack import ALStack
from .threads import Autocast, default_threads, intra_op_threads, worker_settings
from .trace import Trace

__all__ = ["ALFM", "SCHEDULES", "Continuous", "Schedule", "Sequential", "StageError", "make_schedule"]

#: Batches that may wait between two stages: enough to absorb jitter, few enough to keep memory flat.
QUEUE_DEPTH = 2
#: Seconds that closing gives the workers, together, to end the step that each is in.
JOIN_DEADLINE = 10.0

LocalLosses = list[tuple[Tensor, Tensor]]


class StageError(RuntimeError):
    """A layer failed on a batch (None: while its worker started); the original exception is the `__cause__`."""

    def __init__(self, layer: str, batch: int | None, cause: BaseException) -> None:
        when = "before its first batch" if batch is None else f"on batch {batch}"
        super().__init__(f"layer {layer!r} failed {when}: {type(cause).__name__}: {cause}")
        self.layer = layer
        self.batch = batch
        self.__cause__ = cause


@dataclass
class Batch:
    """What travels from layer to layer: the batch's number and learning rate go with its tensors."""

    number: int
    lr: LearningRate | None
    x: Any
    y: Any
    losses: LocalLosses = field(default_factory=list)


class Schedule(ABC):
    """Trains a stack on batches. Use it as a context manager, or `close` it, to end its threads.

    `threads`: intra-op threads of every worker, the same for every schedule because the order of a sum depends
    on it. `seed`: root of the layers' random streams. `trace`: records what each layer did when.
    """

    name: ClassVar[str]

    def __init__(
        self, stack: ALStack, *, threads: int | None = None, seed: int = 0, trace: Trace | None = None
    ) -> None:
        self.stack = stack
        self.threads = default_threads(len(stack)) if threads is None else threads
        if self.threads < 1:
            raise ValueError(f"threads: got {threads}; expected at least 1")
        self.seed = seed
        self.trace = trace
        self._running = False
        self._autocast = Autocast()

    def run(
        self,
        batches: Iterable[tuple[Any, Any]],
        *,
        lr: Callable[[int], LearningRate] | None = None,
        first: int = 0,
    ) -> Iterator[LocalLosses]:
        """Train on every (x, y) of `batches` and yield each batch's losses, in order, when its last layer is done.

        Nothing is trained before the result is iterated over.

        A batch's losses are one (associated, auto-encoder) pair of 0-d tensors per layer. Batches are numbered
        from `first`; `lr` gives the learning rate for a number. The caller's autocast holds in every layer. Raises
        StageError for a failure in a layer, what the loader raised as it was, and RuntimeError while another run
        is open. Leaving the loop early, like a failing loader, lets the batches under way finish first.
        """
        if self._running:
            raise RuntimeError("this schedule has an open run; finish it, or close() it, before the next")
        self._running = True
        self._autocast = Autocast()
        numbered = (
            Batch(number, lr(number) if lr is not None else None, x, self.stack.target(y))
            for number, (x, y) in enumerate(batches, start=first)
        )
        with intra_op_threads(self.threads):
            try:
                yield from self._run(numbered)
            except GeneratorExit:
                raise
            except BaseException:
                # Whatever happened, the layers can be trained on: no half-done batch stays in one.
                if self._stop():
                    for layer in self.stack:
                        layer.discard()
                raise
            finally:
                self._running = False

    @abstractmethod
    def _run(self, batches: Iterator[Batch]) -> Iterator[LocalLosses]:
        """Train on the numbered batches and yield their losses in order."""

    def close(self) -> None:
        """End the schedule's threads, if it has any; safe to call twice."""
        self._stop()

    def _stop(self) -> bool:
        """End the threads without raising anything; tell whether all have ended."""
        return True

    def _forward(self, name: str, layer: AL, batch: Batch) -> None:
        """Run one layer forward on one batch, which then holds the layer's outputs."""
        with self._span(name, batch, "forward"):
            enter_stream(layer, self.seed, name, batch.number)
            if batch.lr is not None:
                layer.set_lr(batch.lr)
            with torch.enable_grad(), self._autocast.entered():
                batch.x, batch.y = layer(batch.x, batch.y)
            batch.losses.append(layer.loss())

    def _backward(self, name: str, layer: AL, batch: Batch) -> None:
        """Run one layer's backward pass and update."""
        with self._span(name, batch, "backward"):
            layer.backward_and_update()

    def _span(self, name: str, batch: Batch, phase: str) -> Any:
        return nullcontext() if self.trace is None else self.trace.span(name, batch.number, phase)

    def __enter__(self) -> Schedule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An exception that is on its way matters more than what closing could have to say.
        if error is None:
            self.close()
        else:
            self._stop()


class Sequential(Schedule):
    """One thread, one layer after another: the reference that the other schedules are compared with."""

    name = "sequential"

    def _run(self, batches: Iterator[Batch]) -> Iterator[LocalLosses]:
        for batch in batches:
            for name, layer in self.stack.items():
                try:
                    self._forward(name, layer, batch)
                    self._backward(name, layer, batch)
                except Exception as error:
                    raise StageError(name, batch.number, error) from error
            yield batch.losses


class ALFM(Schedule):
    """A new thread per layer and batch for backward and update, all joined before the next batch.

    The forward passes run on the caller's thread. Kept as the baseline that earlier codes used.
    """

    name = "al-fm"

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        refuse_shared_randomness(stack, self.name)

    def _run(self, batches: Iterator[Batch]) -> Iterator[LocalLosses]:
        for batch in batches:
            failures: list[StageError] = []
            workers: list[threading.Thread] = []
            try:
                for name, layer in self.stack.items():
                    try:
                        self._forward(name, layer, batch)
                    except Exception as error:
                        raise StageError(name, batch.number, error) from error
                    worker = threading.Thread(
                        target=self._work, args=(name, layer, batch, failures), name=f"al-{name}", daemon=True
                    )
                    worker.start()
                    workers.append(worker)
            finally:
                for worker in workers:
                    worker.join()
            if failures:
                raise failures[0]
            yield batch.losses

    def _work(self, name: str, layer: AL, batch: Batch, failures: list[StageError]) -> None:
        """Run one layer's backward and update on this thread and keep what failed."""
        try:
            with worker_settings(layer.device, self.threads):
                self._backward(name, layer, batch)
        except BaseException as error:
            failures.append(StageError(name, batch.number, error))


class Continuous(Schedule):
    """A persistent worker per stage and bounded channels between them: no barrier, no bubble but fill and drain.

    A stage is a run of neighbouring layers on one GPU; on the CPU every layer is a stage of its own, and the
    operating system balances the workers over the cores. The caller's thread feeds the first stage.
    """

    name = "continuous"

    def __init__(self, stack: ALStack, **options: Any) -> None:
        super().__init__(stack, **options)
        refuse_shared_randomness(stack, self.name)
        self._failure: StageError | None = None
        self._told = False
        self._failing = threading.Lock()
        self._devices = stack.devices
        self._stages = _stages(stack)
        self._channels: list[Channel[Batch]] = [Channel(QUEUE_DEPTH) for _ in self._stages]
        # Unbounded, so that the last stage never waits for the caller; the inlet bounds what is under way.
        self._channels.append(Channel())
        self._workers = [
            threading.Thread(target=self._work, args=(index,), name=f"al-stage-{index}", daemon=True)
            for index in range(len(self._stages))
        ]
        for worker in self._workers:
            worker.start()

    def _run(self, batches: Iterator[Batch]) -> Iterator[LocalLosses]:
        if self.stack.devices != self._devices:
            raise RuntimeError("the layers have moved since this schedule was made; place them first, then make it")
        inlet, outlet = self._channels[0], self._channels[-1]
        under_way = 0
        try:
            for batch in batches:
                inlet.put(batch)
                under_way += 1
                while outlet.ready():
                    done = outlet.get()
                    under_way -= 1
                    yield done.losses
            while under_way:
                done = outlet.get()
                under_way -= 1
                yield done.losses
        except Closed:
            self._raise_failure()
            raise RuntimeError("the continuous schedule was closed; make a new one to train on") from None
        except (Exception, GeneratorExit) as end:
            # The loader failed, or the caller left its loop: every layer still gets every batch that was sent.
            with suppress(Closed):
                for _ in range(under_way):
                    outlet.get()
            # Python drops what an abandoned iterator raises, so that failure is kept for `close`.
            if not isinstance(end, GeneratorExit):
                self._raise_failure()
            raise

    def _work(self, index: int) -> None:
        """Be the worker of stage `index`: take a batch, train this stage's layers on it, hand it on."""
        inlet, outlet = self._channels[index], self._channels[index + 1]
        stage = self._stages[index]
        name, number = stage[0][0], None
        try:
            with worker_settings(stage[0][1].device, self.threads):
                while True:
                    batch = inlet.get()
                    number = batch.number
                    for name, layer in stage:
                        self._forward(name, layer, batch)
                        self._backward(name, layer, batch)
                    outlet.put(batch)
        except Closed:
            return
        except BaseException as error:
            self._fail(StageError(name, number, error))

    def _fail(self, failure: StageError) -> None:
        """Keep the first failure and wake everybody."""
        with self._failing:
            if self._failure is None:
                self._failure = failure
        self._close_channels()

    def _raise_failure(self) -> None:
        """Raise the failure of a worker, if there is one."""
        if self._failure is not None:
            self._told = True
            raise self._failure from self._failure.__cause__

    def _close_channels(self) -> None:
        for channel in self._channels:
            channel.close()

    def close(self) -> None:
        """End the workers; a batch under way in a layer is finished there and goes no further.

        Raises StageError for a failure that came after the caller had left its loop, and RuntimeError where a step
        lasts longer than JOIN_DEADLINE.
        """
        if not self._stop():
            raise RuntimeError(f"a worker did not end within {JOIN_DEADLINE:.0f} s: {', '.join(self._alive())}")
        if not self._told:
            self._raise_failure()

    def _stop(self) -> bool:
        self._close_channels()
        deadline = time.monotonic() + JOIN_DEADLINE
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        return not self._alive()

    def _alive(self) -> list[str]:
        return [worker.name for worker in self._workers if worker.is_alive()]


SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Sequential, ALFM, Continuous)}


def make_schedule(name: str, stack: ALStack, **options: Any) -> Schedule:
    """Return the schedule of that name for `stack`; options as for `Schedule`. Raises ValueError."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule: got {name!r}; expected one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](stack, **options)


def _stages(stack: ALStack) -> list[Sequence[tuple[str, AL]]]:
    """Divide the layers into stages: neighbours on one GPU together, every CPU layer on its own."""
    stages: list[list[tuple[str, AL]]] = []
    last: torch.device | None = None
    for name, layer in stack.items():
        if last is None or layer.device.type == "cpu" or layer.device != last:
            stages.append([])
        stages[-1].append((name, layer))
        last = layer.device
    return list(stages)
