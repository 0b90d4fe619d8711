"""A stage of the continuous pipeline: neighboring layers on one device, and the thread that trains them.

    inlet --[1] take--> [2] move to the device --[3] F B F B .. F--> [4] hand on --> [5] last B --> inlet

The pair (x, y) is handed on before the last layer's backward pass, because the next stage does not need that; where the
channel is full, and in the last stage, [5] comes before [4]. So a batch may leave the pipeline while an earlier stage
still updates on it, and a run ends with a marker, which a worker takes once it is done with everything before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import StageError
from ..layer import LocalLayer
from ..nested import to_device
from .batch import Batch, PredictBatch, TrainBatch
from .channel import Channel, Closed
from .cuda_graph import StepGraph, make_graph, preview
from .links import FirstFailure, Item
from .snapshot import Snapshot
from .step import Step
from .threads import WorkerThread, worker_settings
from .trace import Usage
from .transfer import StageInput


class Worker:
    """The thread `al-stage-<number>`, which takes batches from `inlet`, trains `layers` on them and hands them on.

    It knows its channels and not the schedule, so that a schedule that nobody closed can still be collected.
    `last`: whether `outlet` leads back to the caller.
    """

    def __init__(
        self,
        number: int,
        layers: Sequence[tuple[str, LocalLayer]],
        inlet: Channel[Item],
        outlet: Channel[Item],
        failure: FirstFailure,
        step: Step,
        stage_input: StageInput,
        *,
        threads: int,
        last: bool,
    ) -> None:
        self.layers = layers
        self.stage_input = stage_input
        self.device = layers[0][1].device
        # On the CPU a worker counts as a device of its own.
        device = f"cpu:{number}" if self.device.type == "cpu" else str(self.device)
        self.usage = Usage(device, [name for name, _ in layers])
        self._inlet, self._outlet, self._last = inlet, outlet, last
        self._failure = failure
        self._step = step
        self._threads = threads
        self._graph: StepGraph | None = None
        self._run_began = 0.0
        self._call: Callable[..., Any] = _plainly
        # Where the worker is, for a failure: the layer's name and the batch's number.
        self._at: tuple[str, int | None] = layers[0][0], None
        self.thread = WorkerThread(self._work, f"al-stage-{number}")
        self.thread.stop = failure.stop

    def capture(self, example: TrainBatch, force: bool) -> TrainBatch:
        """Try to put the stage's step into a CUDA graph, and return what the next stage would get for `example`.

        Call it before the first batch, while every worker waits: nothing else may use a GPU during a capture.
        """
        with worker_settings(self.device, self._threads), self.stage_input.computing():
            example.x, example.y = to_device((example.x, example.y), self.device)
            if self.stage_input.copies:
                self._graph = make_graph(self.layers, self._step, example, self.stage_input.stream, force=force)
            return preview(self.layers, self._step, example)

    def begin_run(self) -> None:
        """Note that a run begins, and the state of the caller's thread; call it while every worker waits."""
        self._run_began = time.perf_counter()
        self._call = self._step.caller.worker()

    def drop_stale_graph(self) -> bool:
        """Forget a graph that no longer is the stage's step, and return whether it was one; call it as `capture`."""
        stale = self._graph is not None and self._graph.stale()
        if stale:
            self._graph = None
        return stale

    def _work(self) -> None:
        try:
            with worker_settings(self.device, self._threads), self.stage_input.computing():
                while True:
                    self._take_next()
        except Closed:
            pass
        except BaseException as error:  # whatever it is, the caller must hear of it, or it would wait for ever
            self._failure.report(StageError(*self._at, error))
        # So that the layers can be trained by another schedule, whatever this one was in the middle of.
        for _, layer in self.layers:
            layer.discard()

    def _take_next(self) -> None:
        """Take the next item through the stage: a batch, a snapshot, or the marker of a run's end."""
        waiting = time.perf_counter()
        item = self._inlet.get()  # [1] in the drawing
        if item is None:
            self._call = _plainly  # what the caller's state holds is not kept until the next run
            self._outlet.put(None)
        else:
            self._call(self._process, item, waiting)

    def _process(self, item: Batch | Snapshot, waiting: float) -> None:
        """Take the item through the stage, in the state of the caller's thread. `waiting`: since when it waited."""
        if isinstance(item, Snapshot):
            for name, layer in self.layers:
                self._at = name, item.number
                item.take(name, layer)
            self._outlet.put(item)
            return
        taken = time.perf_counter()
        self._at = self.layers[0][0], item.number
        self.stage_input.receive(item)  # [2]
        if isinstance(item, PredictBatch):
            self._infer(item)
            return
        assert isinstance(item, TrainBatch)
        moved = time.perf_counter()
        number = item.number  # by the end the batch may be in the next stage, or with the caller
        spaced = self._train(item)
        done = time.perf_counter()
        # The time before the run began, when there was nothing to train on, is not waiting for input.
        waiting = min(taken, max(waiting, self._run_began))
        usage = self.usage
        usage.batches += 1
        usage.wait_input += taken - waiting
        usage.copy += moved - taken
        usage.wait_space += spaced
        usage.busy += done - moved - spaced
        if self._step.trace is not None:
            self._step.trace.add(self.layers[0][0], number, "wait for input", waiting, taken)
            if self.stage_input.copies:
                self._step.trace.add(self.layers[0][0], number, "copy", taken, moved)

    def _train(self, batch: TrainBatch) -> float:
        """Train the layers on `batch`, hand it on, and return the seconds spent waiting for the next stage's space."""
        number = batch.number
        # A smaller last batch does not fit the graph that the others run as.
        graphed = self._graph is not None and self._graph.fits(batch)
        handed_on = self._replay(batch) if graphed else self._train_eagerly(batch)
        self.stage_input.record_done()
        if handed_on:
            return 0.0
        start = time.perf_counter()
        self._outlet.put(batch)
        spaced = time.perf_counter() - start
        if self._step.trace is not None and not self._last:
            self._step.trace.add(self.layers[0][0], number, "wait for space", start, start + spaced)
        return spaced

    def _train_eagerly(self, batch: TrainBatch) -> bool:
        """Run the layers' steps one after another; return whether the batch has been handed on."""
        number, handed_on = batch.number, False
        last = self.layers[-1][0]
        guard = None
        start = time.perf_counter()
        for name, layer in self.layers:
            self._at = name, number
            self._step.forward(name, layer, batch)  # [3]
            if name == last:
                guard = batch.guard  # after the offer the next stage puts its own there
                self.stage_input.record_output(batch)
                # [4] early, if there is space; never from the last stage, or the caller would get losses of a batch
                # whose update may still fail.
                handed_on = not self._last and self._outlet.offer(batch)
            with self._step.span(name, number, "backward"):
                layer.backward_and_update()
            stop = time.perf_counter()
            self.usage.layer_busy[name] += stop - start
            start = stop
        if handed_on and guard is not None:
            # The next stage may have read its input already, and would not see what the update has just changed, such
            # as a parameter of g that was handed on as it is.
            guard.check()
        return handed_on

    def _replay(self, batch: TrainBatch) -> bool:
        """Replay the graph of the stage's step; the batch is handed on after all of it."""
        assert self._graph is not None
        start = time.perf_counter()
        with self._step.span(self.layers[0][0], batch.number, "forward"):
            self._graph.run(batch)
        self.stage_input.record_output(batch)
        share = (time.perf_counter() - start) / len(self.layers)
        for name, _ in self.layers:
            self.usage.layer_busy[name] += share
        return False

    def _infer(self, batch: PredictBatch) -> None:
        """Run the layers' inference on `batch` and hand it on."""
        for name, layer in self.layers:
            self._at = name, batch.number
            self._step.infer(name, layer, batch)
        self.stage_input.record_output(batch)
        self.stage_input.record_done()
        self._outlet.put(batch)


def _plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
