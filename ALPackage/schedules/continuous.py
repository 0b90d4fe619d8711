"""The continuous pipeline: a persistent worker per stage and bounded channels between them; no barrier anywhere."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..devices import stage_sizes
from ..errors import StageError
from ..layer import LocalLayer
from ..stack import ALStack
from ..stage.batch import Batch, MemoryCheck, TrainBatch
from ..stage.channel import Closed
from ..stage.links import FirstFailure, PipelineLinks
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from ..stage.transfer import entry_events, order_streams, stage_input_for, sync_with_caller
from ..stage.worker import Worker
from .schedule import FAILURE_DEADLINE, Schedule

#: Batches that may wait between two stages: enough to absorb jitter, few enough to keep memory flat.
QUEUE_DEPTH = 2
#: Seconds that closing gives the workers, together, to end the step that each is in.
JOIN_DEADLINE = 10.0


class Continuous(Schedule):
    """A persistent worker per stage and bounded channels between them: no barrier, no bubble but fill and drain.

    `stages`: the number of layers of each stage, first to last; by default neighbors that were placed on one device, or
    on one worker "cpu:K", are one stage, and a layer on just "cpu" is a stage of its own, which the operating system
    balances over the cores. `depth`: batches that may wait between two stages. The caller's thread feeds the first
    stage.
    """

    name = "continuous"
    alone = False
    persistent = True

    def __init__(
        self, stack: ALStack, *, stages: Sequence[int] | None = None, depth: int = QUEUE_DEPTH, **options: Any
    ) -> None:
        super().__init__(stack, **options)
        if depth < 1:
            raise ValueError(f"depth: got {depth}; expected at least 1 batch between two stages")
        self._devices = stack.devices
        layers = _divide(stack, stages)
        self._ended_when: str | None = None
        self._unfinished = self._interrupted = False
        self._captured = self._cuda_graph == "off" or all(device.type != "cuda" for device in self._devices)
        self._links = PipelineLinks(len(layers), depth)
        # Every stage may be at work on a batch while its inlet is full.
        self._memory = MemoryCheck(len(layers) * (depth + 1))
        self._failure = FirstFailure(self._links.close)
        channels = self._links.channels
        self._workers = [
            Worker(
                number,
                stage,
                channels[number],
                channels[number + 1],
                self._failure,
                self._step,
                stage_input_for(stage[0][1].device),
                threads=self.threads,
                last=number + 1 == len(layers),
            )
            for number, stage in enumerate(layers)
        ]
        # If nobody closes the schedule, its threads end when it is collected.
        weakref.finalize(self, self._links.close)
        try:
            for worker in self._workers:
                worker.thread.start()
        except BaseException:
            self._links.close()
            raise

    def usage(self) -> list[Usage]:
        """Return how each stage's worker has spent its time in training since the schedule was made."""
        return [worker.usage for worker in self._workers]

    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        self._refuse_other_layers()
        if self._unfinished:  # the last run's batches would be taken for this run's
            self._links.close()
        self._unfinished = True
        inlet, outlet = self._links.channels[0], self._links.channels[-1]
        under_way = 0
        training = False
        for worker in self._workers:
            worker.begin_run()
        self._order_streams(entering=True)
        try:
            for item in items:
                if isinstance(item, Batch):
                    if isinstance(item, TrainBatch):
                        if not training:
                            training = True
                            self._drop_stale_graphs()
                        self._prepare(item)
                    item.events = entry_events(item.inputs)
                inlet.put(item)  # waits while the first stage is behind, which bounds what is under way
                under_way += 1
                # Hand out what is done, without waiting: the caller's thread has the first stage to feed.
                while outlet.ready():
                    under_way -= 1
                    yield self._next_done()
            # The loader is exhausted; from here on the pipeline drains.
            while under_way:
                under_way -= 1
                yield self._next_done()
            self._drain()
            self._order_streams(entering=False)
        except Closed:
            self._refuse_other_process()
            # A worker failed and closed all channels, or `close` was called while this run was open.
            self._raise_failure()
            raise RuntimeError("the continuous schedule was closed; make a new one to train on") from None
        except (StageError, GeneratorExit) as end:
            # The loader failed, or the caller left its loop: every layer still gets every batch that was sent.
            # Python drops what an abandoned iterator raises, so a failure, or Ctrl-C, is kept for `close` then.
            left = isinstance(end, GeneratorExit)
            try:
                with suppress(Closed):
                    self._drain()
            except BaseException as error:
                self._interrupted = left and isinstance(error, KeyboardInterrupt)
                self._links.close()
                raise
            self._order_streams(entering=False)
            if not left:
                self._raise_failure()
            raise

    def _refuse_wrong_layers(self) -> None:
        self._refuse_other_layers()
        super()._refuse_wrong_layers()

    def _refuse_other_layers(self) -> None:
        """Raise RuntimeError if the workers have other layers than the stack, or have them elsewhere."""
        if self.stack.devices != self._devices:
            raise RuntimeError("the layers have moved since this schedule was made; place them first, then make it")
        if [layer for worker in self._workers for _, layer in worker.layers] != list(self.stack):
            raise RuntimeError("the stack has other layers than when this schedule was made; make a new one")

    def _drop_stale_graphs(self) -> None:
        """Have the steps captured anew if a layer has changed since, such as its mode or a loss's temperature.

        Asked before a run's first training batch and not before predictions, for which the layers are in evaluation
        mode: every measurement between two epochs would cost a capture.
        """
        stale = [worker.drop_stale_graph() for worker in self._workers]
        if any(stale):
            self._captured = False

    def _prepare(self, example: TrainBatch) -> None:
        """Let every GPU stage try to put its step into a CUDA graph, one after another, while all workers wait."""
        if self._captured:
            return
        self._captured = True
        # The batch may have been made on the caller's stream after the run had begun.
        self._order_streams(entering=True)
        batch = TrainBatch(example.number, example.x, example.y, example.lr)
        for worker in self._workers:
            try:
                batch = worker.capture(batch, force=self._cuda_graph == "on")
            except StageError:
                raise
            except Exception as error:
                raise StageError(worker.layers[0][0], example.number, error) from error

    def _order_streams(self, *, entering: bool) -> None:
        order_streams([worker.stage_input for worker in self._workers], entering=entering)

    def _next_done(self) -> Batch | Snapshot:
        """Return what leaves the pipeline next, fit for use on the caller's thread."""
        item = self._links.channels[-1].get()
        assert item is not None  # the marker of the end comes after everything
        if isinstance(item, Batch):
            sync_with_caller(item)
        return item

    def _drain(self) -> None:
        """Wait until every worker is done with the batches that are under way. Raises Closed."""
        self._links.channels[0].put(None)
        while self._links.channels[-1].get() is not None:
            pass
        self._unfinished = False

    def _raise_failure(self) -> None:
        """Raise the failure of a worker, if there is one. Only its words are kept: its traceback holds tensors."""
        failure = self._failure.pop()
        if failure is not None:
            self._ended_when = str(failure)
            try:
                raise failure from failure.__cause__
            finally:
                del failure  # its own traceback holds this frame
        if self._ended_when is not None:
            raise RuntimeError(f"this schedule ended when {self._ended_when}; make a new one to train on")

    def close(self) -> None:
        """End the workers; a batch under way in a layer is finished there and goes no further.

        Raises StageError for a failure that came after the caller had left its loop, KeyboardInterrupt for Ctrl-C
        meanwhile, and RuntimeError where a step lasts longer than JOIN_DEADLINE.
        """
        if os.getpid() != self._process:
            return  # forked off: the threads are not here
        if not self._join(JOIN_DEADLINE):
            alive = [worker.thread.name for worker in self._workers if not worker.thread.finished(0.0)]
            raise RuntimeError(f"a worker did not end within {JOIN_DEADLINE:.0f} s: {', '.join(alive)}")
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        if self._ended_when is None:
            self._raise_failure()
        super().close()

    def _abort(self) -> None:
        self._join(FAILURE_DEADLINE)

    def _join(self, seconds: float) -> bool:
        """Close the channels, wait for the workers to end, and return whether all have."""
        try:
            self._links.close()
            deadline = time.monotonic() + seconds
            return all(worker.thread.finished(max(0.0, deadline - time.monotonic())) for worker in self._workers)
        except BaseException:  # Ctrl-C here must not leave a worker waiting
            self._links.close()
            raise


def _divide(stack: ALStack, sizes: Sequence[int] | None) -> list[list[tuple[str, LocalLayer]]]:
    """Divide the layers into stages of the given sizes. Raises ValueError where they do not fit the stack."""
    layers = list(stack.items())
    # By placement, not by device: torch's device of a layer on the CPU does not say on which worker it goes.
    sizes = stage_sizes([layer.placement for layer in stack]) if sizes is None else list(sizes)
    if not all(size >= 1 for size in sizes) or sum(sizes) != len(layers):
        raise ValueError(
            f"stages: got {sizes}, {sum(sizes)} layers in all; expected at least 1 per stage and {len(layers)} in all"
        )
    stages = []
    for size in sizes:
        stage, layers = layers[:size], layers[size:]
        if len({layer.device for _, layer in stage}) > 1:
            raise ValueError(
                f"stages: {', '.join(name for name, _ in stage)} are one stage but not on one device; "
                "place them together or divide the stage"
            )
        stages.append(stage)
    return stages
