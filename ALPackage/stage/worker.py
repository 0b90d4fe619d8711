"""A worker of the continuous pipeline: a thread that takes one layer after another from the board and runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import StageError
from .batch import Batch, Marker, PredictBatch, TrainBatch
from .board import Board
from .channel import Closed
from .crew import Member
from .failure import FirstFailure
from .runner import LayerRunner
from .snapshot import Snapshot
from .step import Step
from .threads import WorkerThread, worker_settings
from .trace import Usage
from .transfer import WorkerInput


class Worker:
    """The thread `al-worker-<number>`, which trains the layers that the board gives it, a batch at a time.

    It knows the board and not the schedule, so that a schedule that nobody closed can still be collected.
    """

    def __init__(
        self,
        number: int,
        member: Member,
        runners: Sequence[LayerRunner],
        board: Board,
        failure: FirstFailure,
        step: Step,
        source: WorkerInput,
        *,
        threads: int,
    ) -> None:
        self.source = source
        self.member = member
        self.usage = Usage(member.name, [runners[layer].name for layer in member.layers])
        self._number = number
        self._runners = runners
        self._board = board
        self._failure = failure
        self._step = step
        self._threads = threads
        self._run_began = 0.0
        self._call: Callable[..., Any] = _plainly
        # The layer that is at work here, and the number of its batch.
        self._at: tuple[LayerRunner, int | None] | None = None
        self.thread = WorkerThread(self._work, f"al-worker-{number}")
        self.thread.stop = failure.stop

    def begin_run(self) -> None:
        """Note that a run begins, and the state of the caller's thread; call it while every worker waits."""
        self._run_began = time.perf_counter()
        self._call = self._step.caller.worker()

    def end_run(self) -> None:
        """Forget what the caller's state holds; call it while every worker waits."""
        self._call = _plainly

    def _work(self) -> None:
        done: int | None = None
        try:
            with worker_settings(self.member.device, self._threads), self.source.computing():
                while True:
                    done = self._take_next(done)
        except Closed:
            pass
        except BaseException as error:  # whatever it is, the caller must hear of it, or it would wait for ever
            runner, number = self._at or (self._runners[0], None)
            self._failure.report(StageError(runner.name, number, error))
        # So that the layer can be trained by another schedule, whatever this one was in the middle of.
        if self._at is not None:
            self._at[0].layer.discard()
        self._call = _plainly

    def _take_next(self, done: int | None) -> int:
        """Run the layer that the board gives, and return its index. `done`: the layer before it."""
        waiting = time.perf_counter()
        layer, item, starved = self._board.take(self._number, done)
        runner = self._runners[layer]
        not_for_it = isinstance(item, Batch) and not item.is_for(runner.index)
        if item is None or isinstance(item, Marker) or not_for_it:  # None marks the end of a run
            self._board.hand_on(layer, item)
            return layer
        self._at = runner, item.number
        hand_on = partial(self._board.hand_on, layer)
        self._call(self._process, runner, item, hand_on, waiting, starved)
        self._at = None
        return layer

    def _process(
        self, runner: LayerRunner, item: Batch | Snapshot, hand_on: Callable[[Any], None], waiting: float, starved: bool
    ) -> None:
        """Run a layer on the item, in the state of the caller's thread. `waiting`: since when the worker has waited."""
        if isinstance(item, Snapshot):
            runner.take(item, self.source)
            hand_on(item)
            return
        taken = time.perf_counter()
        self.source.receive(item)
        if isinstance(item, PredictBatch):
            runner.infer(item, self.source)
            hand_on(item)
            return
        assert isinstance(item, TrainBatch)
        moved = time.perf_counter()
        number = item.number  # by the end the batch may be in the next layer, or with the caller
        busy = runner.train(item, self.source, hand_on)
        no_data = (taken - waiting) * starved
        if waiting < self._run_began:
            # The time before the run, when there was nothing to train on, is not idle. After that the worker has waited
            # for the run's first batch, and then for the layers before its own.
            waiting = min(taken, self._run_began)
            no_data = min(taken, max(waiting, self._board.fed)) - waiting
        self.usage.add(runner.name, busy=busy, copy=moved - taken, idle=taken - waiting, no_data=no_data)
        if (trace := self._step.trace) is not None:
            for phase, start, stop in (
                ("wait for data", waiting, waiting + no_data),
                ("idle", waiting + no_data, taken),
            ):
                if start < stop:
                    trace.add(runner.name, number, phase, start, stop)
            if self.source.copies:
                trace.add(runner.name, number, "copy", taken, moved)


def _plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
