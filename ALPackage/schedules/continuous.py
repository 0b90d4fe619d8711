"""The continuous pipeline: persistent workers that take whatever layer is ready; no barrier anywhere."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ..errors import StageError
from ..layer import LocalLayer
from ..stack import ALStack
from ..stage.batch import Batch, Marker, MemoryCheck, TrainBatch
from ..stage.board import Board, Item
from ..stage.channel import Closed
from ..stage.crew import crew
from ..stage.exit import Exit
from ..stage.failure import FirstFailure
from ..stage.runner import LayerRunner
from ..stage.snapshot import Snapshot
from ..stage.threads import WorkerThread, worker_settings
from ..stage.trace import Usage
from ..stage.transfer import entry_events, input_for, order_streams, sync_with_caller
from ..stage.worker import Worker
from .schedule import FAILURE_DEADLINE, Schedule

#: Batches that may wait before a layer: enough to absorb jitter, few enough to keep memory flat.
QUEUE_DEPTH = 2
#: Seconds that closing gives the workers, together, to end the step that each is in.
JOIN_DEADLINE = 10.0


class Continuous(Schedule):
    """Persistent workers that share the layers: no barrier, no bubble but fill and drain.

    A worker takes the first ready layer of those that it ran last, else the first ready one (see `stage.board`). A
    layer that is placed on "cpu" may run on any CPU worker, one on "cpu:K" only on that one, and one on a GPU only on
    that GPU's workers. The caller's thread feeds the first layer.

    Args:
        workers: CPU workers; by default one per `threads` cores, and not more than there are layers on the CPU.
        depth: Batches that may wait before a layer.
        streams_per_device: Workers of each GPU, with a stream of their own each.
    """

    name = "continuous"
    alone = False
    persistent = True

    def __init__(
        self,
        stack: ALStack,
        *,
        workers: int | None = None,
        depth: int = QUEUE_DEPTH,
        streams_per_device: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(stack, **options)
        self._start(list(stack.items()), workers, depth, streams_per_device)

    def _start(
        self,
        layers: list[tuple[str, LocalLayer]],
        workers: int | None,
        depth: int,
        streams_per_device: int,
        leave: Callable[[Item], bool] | None = None,
    ) -> None:
        """Start the workers of `layers`. `leave`: takes what has passed them, on a thread of its own (see `Exit`)."""
        if depth < 1:
            raise ValueError(f"depth: got {depth}; expected at least 1 batch before a layer")
        self._layers = layers
        self._placement = [layer.placement for _, layer in layers]
        members = crew(self._placement, workers=workers, threads=self.threads, streams_per_device=streams_per_device)
        self._ended_when: str | None = None
        self._unfinished = self._interrupted = False
        devices = [layer.device for _, layer in layers]
        self._captured = self._cuda_graph == "off" or all(device.type != "cuda" for device in devices)
        # Every layer may be at work on a batch while its queue is full.
        self._memory = MemoryCheck(len(layers) * (depth + 1))
        may_run = [member.layers for member in members]
        if leave is not None:
            may_run.append((len(layers),))
        self._board = Board(may_run, len(layers) + (leave is not None), depth)
        self._failure = self._first_failure()
        names = self.stack.names
        self._runners = [
            LayerRunner(name, layer, self._step, index=names.index(name), count=len(names)) for name, layer in layers
        ]
        self._exit = (
            None if leave is None else Exit(len(members), len(layers), layers[-1][0], self._board, self._failure, leave)
        )
        self._workers = [
            Worker(
                number,
                member,
                self._runners,
                self._board,
                self._failure,
                self._step,
                input_for(member.device),
                threads=self.threads,
            )
            for number, member in enumerate(members)
        ]
        # If nobody closes the schedule, its threads end when it is collected.
        weakref.finalize(self, self._board.close)
        try:
            for thread in self._threads():
                thread.start()
        except BaseException:
            self._board.close()
            raise

    def _first_failure(self) -> FirstFailure:
        """Return what keeps the first failure and ends everything then."""
        return FirstFailure(self._board.close)

    def _threads(self) -> list[WorkerThread]:
        """Return the threads that were started when the schedule was made."""
        return [worker.thread for worker in self._workers] + ([] if self._exit is None else [self._exit.thread])

    def usage(self) -> list[Usage]:
        """Return how each worker has spent its time in training since the schedule was made."""
        return [worker.usage for worker in self._workers]

    def _run(self, items: Iterator[Batch | Snapshot | Marker]) -> Iterator[Batch | Snapshot | Marker]:
        if self._unfinished:  # the last run's batches would be taken for this run's
            self._board.close()
        self._unfinished = True
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
                            # A capture takes steps that it undoes: no snapshot may take the layers' state meanwhile.
                            while under_way and not self._captured:
                                under_way -= 1
                                yield self._next_done()
                        self._prepare(item)
                    item.events = entry_events(item.inputs)
                self._put(item)  # waits while the first layer is behind, which bounds what is under way
                under_way += 1
                # Hand out what is done, without waiting: the caller's thread has the first layer to feed.
                while self._done():
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
            # A worker failed and closed the board, or `close` was called while this run was open.
            self._raise_failure()
            raise RuntimeError("the continuous schedule was closed; make a new one to train on") from None
        except (StageError, GeneratorExit) as end:
            # The loader failed, or the caller left its loop: every layer still gets every batch that was sent.
            # Python drops what an abandoned iterator raises, so a failure, or Ctrl-C, is kept for `close` then.
            left = isinstance(end, GeneratorExit)
            if left and threading.current_thread() in self._threads():
                # The garbage collector ends an abandoned iterator on any thread; a worker cannot wait for itself.
                self._board.close()
                self._unreported = RuntimeError(
                    "a run was abandoned, and the garbage collector ended it in the middle of a layer's step, so its "
                    "last batches are lost; close the iterator of a run that you leave early"
                )
                raise
            try:
                with suppress(Closed):
                    self._drain()
            except BaseException as error:
                self._interrupted = left and isinstance(error, KeyboardInterrupt)
                self._board.close()
                raise
            self._order_streams(entering=False)
            if not left:
                self._raise_failure()
            raise

    def _refuse_other_layers(self) -> None:
        if [layer.placement for _, layer in self._layers] != self._placement:
            raise RuntimeError("the layers have moved since this schedule was made; place them first, then make it")
        super()._refuse_other_layers()

    def _drop_stale_graphs(self) -> None:
        """Have the steps captured anew if a layer has changed since, such as its mode or a loss's temperature.

        Asked before a run's first training batch and not before predictions, for which the layers are in evaluation
        mode: every measurement between two epochs would cost a capture.
        """
        stale = [runner.drop_stale_graph() for runner in self._runners]
        if any(stale):
            self._captured = False

    def _prepare(self, example: TrainBatch) -> None:
        """Let every GPU layer try to put its step into a CUDA graph, one after another, while all workers wait."""
        if self._captured:
            return
        self._captured = True
        # The batch may have been made on the caller's stream after the run had begun.
        self._order_streams(entering=True)
        batch = TrainBatch(example.number, example.x, example.y, example.lr)
        for layer, runner in enumerate(self._runners):
            worker = next(worker for worker in self._workers if layer in worker.member.layers)
            try:
                with worker_settings(worker.member.device, self.threads), worker.source.computing():
                    batch = runner.capture(batch, worker.source, force=self._cuda_graph == "on")
            except StageError:
                raise
            except Exception as error:
                raise StageError(runner.name, example.number, error) from error

    def _order_streams(self, *, entering: bool) -> None:
        order_streams([worker.source for worker in self._workers], entering=entering)

    def _put(self, item: Item) -> None:
        """Give the first layer its next item, waiting for room. Raises Closed."""
        self._board.put(item)

    def _done(self) -> bool:
        """Return whether something has left the pipeline, or never will."""
        return self._board.outlet.ready()

    def _take_done(self) -> Item:
        """Return what leaves the pipeline next, waiting for it. Raises Closed."""
        return self._board.outlet.get()

    def _next_done(self) -> Batch | Snapshot | Marker:
        """Return what leaves the pipeline next, fit for use on the caller's thread."""
        item = self._take_done()
        assert item is not None  # the marker of the end comes after everything
        if isinstance(item, Batch):
            sync_with_caller(item)
        return item

    def _drain(self) -> None:
        """Wait until every worker is done with the batches that are under way. Raises Closed."""
        self._put(None)
        while self._take_done() is not None:
            pass
        self._unfinished = False
        for worker in self._workers:
            worker.end_run()

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
            alive = [thread.name for thread in self._threads() if not thread.finished(0.0)]
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
        """Close the board, wait for the workers to end, and return whether all have."""
        try:
            self._board.close()
            deadline = time.monotonic() + seconds
            return all(thread.finished(max(0.0, deadline - time.monotonic())) for thread in self._threads())
        except BaseException:  # Ctrl-C here must not leave a worker waiting
            self._board.close()
            raise
