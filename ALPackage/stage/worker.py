"""A stage of the continuous pipeline: neighboring layers on one device, and the thread that trains them.

    inlet --[1] take--> [2] move to the device --[3] F B F B .. F--> [4] hand on --> [5] last B --> inlet

The pair (x, y) is handed on before the last layer's backward pass, as the next stage needs nothing of that; where it
has no place for it yet, and in the last stage, [5] comes before [4]. So a batch may leave the pipeline while an earlier
stage still updates on it, and a run ends with a marker, which a worker takes when it has done with everything before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ..errors import StageError
from ..layer import LocalLayer
from ..nested import to_device
from .batch import Batch
from .channel import Channel, Closed
from .cuda_graph import StepGraph, make_graph, preview
from .snapshot import Snapshot
from .step import Step
from .threads import WorkerThread, worker_settings
from .trace import Usage
from .transfer import Intake


class Line:
    """What the workers of one pipeline share: the channels between them and the first failure.

    The workers know the line and not the schedule, so that a schedule that nobody closed can still be collected.
    """

    def __init__(self, stages: int, depth: int) -> None:
        # What passes: batches, the snapshots between them, and None at the end of a run.
        self.channels: list[Channel[Batch | Snapshot | None]] = [Channel(depth) for _ in range(stages)]
        # Unbounded, so that the last stage never waits for the caller; the inlet bounds what is under way.
        self.channels.append(Channel())
        self.failure: StageError | None = None
        self.began = 0.0
        self._failing = threading.Lock()

    def fail(self, failure: StageError) -> None:
        """Keep the first failure and wake everybody."""
        with self._failing:
            if self.failure is None:
                self.failure = failure
        self.close()

    def close(self) -> None:
        """End every worker after the step that it is in."""
        for channel in self.channels:
            channel.close()


class Worker:
    """The thread `al-stage-<number>`, which takes batches, trains `layers` on them and hands them on."""

    def __init__(
        self,
        number: int,
        layers: Sequence[tuple[str, LocalLayer]],
        line: Line,
        step: Step,
        intake: Intake,
        threads: int,
    ) -> None:
        self.layers = layers
        device = layers[0][1].device
        # On the CPU a worker is a device.
        self.usage = Usage(f"cpu:{number}" if device.type == "cpu" else str(device), [name for name, _ in layers])
        self._line = line
        self._inlet, self._outlet = line.channels[number], line.channels[number + 1]
        self._step = step
        self._last = number + 2 == len(line.channels)
        self.intake = intake
        self._threads = threads
        self._graph: StepGraph | None = None
        # Where the worker is, for a failure: the layer's name and the batch's number.
        self._at: tuple[str, int | None] = layers[0][0], None
        self.thread = WorkerThread(self._work, f"al-stage-{number}")

    def capture(self, example: Batch, force: bool) -> Batch:
        """Try to put the stage's step into a CUDA graph, and return what the next stage would get for `example`.

        To be called before the first batch, while every worker waits: nothing else may use a GPU during a capture.
        """
        device = self.layers[0][1].device
        with worker_settings(device, self._threads), self.intake.computing():
            example.x, example.y = to_device((example.x, example.y), device)
            if self.intake.copies:
                self._graph = make_graph(self.layers, self._step, example, self.intake.stream, force=force)
            return preview(self.layers, self._step, example)

    def drop_stale_graph(self) -> bool:
        """Forget the graph if it no longer is the stage's step, and tell whether it was; to be called between runs."""
        stale = self._graph is not None and self._graph.stale()
        if stale:
            self._graph = None
        return stale

    def _work(self) -> None:
        try:
            with worker_settings(self.layers[0][1].device, self._threads), self.intake.computing():
                while True:
                    self._one()
        except Closed:
            pass
        except BaseException as error:
            self._line.fail(StageError(*self._at, error))
        for _, layer in self.layers:
            layer.discard()

    def _one(self) -> None:
        """Take one batch, or a marker, through the stage."""
        waiting = time.perf_counter()
        batch = self._inlet.get()
        if batch is None:
            self._outlet.put(None)
            return
        if isinstance(batch, Snapshot):
            for name, layer in self.layers:
                self._at = name, batch.number
                batch.take(name, layer)
            self._outlet.put(batch)
            return
        taken = time.perf_counter()
        self._at = self.layers[0][0], batch.number
        self.intake.receive(batch)
        moved = time.perf_counter()
        if not batch.train:
            self._infer(batch)
            return
        # The time before the run began, when nobody had anything to train, is no wait.
        waiting = min(taken, max(waiting, self._line.began))
        spaced = self._train(batch)
        done = time.perf_counter()
        usage = self.usage
        usage.batches += 1
        usage.wait_input += taken - waiting
        usage.copy += moved - taken
        usage.wait_space += spaced
        usage.busy += done - moved - spaced
        if self._step.trace is not None:
            self._step.trace.add(self.layers[0][0], self._at[1] or 0, "wait for input", waiting, taken)
            if self.intake.copies:
                self._step.trace.add(self.layers[0][0], self._at[1] or 0, "copy", taken, moved)

    def _train(self, batch: Batch) -> float:
        """Train the layers on `batch`, hand it on, and return the seconds spent waiting for the next stage's space."""
        number = batch.number
        handed_on = self._eager(batch) if self._graph is None or not self._graph.fits(batch) else self._graphed(batch)
        self.intake.release()
        if handed_on:
            return 0.0
        start = time.perf_counter()
        self._outlet.put(batch)
        spaced = time.perf_counter() - start
        if self._step.trace is not None and not self._last:
            self._step.trace.add(self.layers[0][0], number, "wait for space", start, start + spaced)
        return spaced

    def _eager(self, batch: Batch) -> bool:
        """Run the layers' steps one after another; tell whether the batch has been handed on."""
        number, handed_on, sealed = batch.number, False, None
        for name, layer in self.layers:
            self._at = name, number
            self._step.forward(name, layer, batch)
            if name == self.layers[-1][0]:
                sealed = batch.sealed
                self.intake.mark(batch)
                handed_on = not self._last and self._outlet.offer(batch)
            self._step.backward(name, layer, number)
        if sealed is not None:
            sealed.verify()  # such as g's own parameter, which the update has just changed
        return handed_on

    def _graphed(self, batch: Batch) -> bool:
        """Replay the graph of the stage's step; the batch is handed on after all of it."""
        assert self._graph is not None
        with self._step.span(self.layers[0][0], batch.number, "forward"):
            self._graph.run(batch)
        self.intake.mark(batch)
        return False

    def _infer(self, batch: Batch) -> None:
        """Run the layers' f and b on `batch` and hand it on."""
        for name, layer in self.layers:
            self._at = name, batch.number
            self._step.infer(name, layer, batch)
        self.intake.mark(batch)
        self.intake.release()
        self._outlet.put(batch)
