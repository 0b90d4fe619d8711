"""One layer of the continuous pipeline: what a worker does with it and a batch.

    receive --> F --> hand on --> B and update          a batch's last layer, and a CUDA graph, hand on at the end

The pair (x, y) is handed on before the backward pass, because the next layer does not need that. So a batch may leave a
layer that still updates on it. The last layer that it is for hands on after its update, or the caller would get losses
of a batch whose update may still fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..layer import LocalLayer
from ..nested import to_device
from .batch import PredictBatch, TrainBatch
from .cuda_graph import StepGraph, make_graph, preview
from .snapshot import Snapshot
from .step import Step
from .transfer import WorkerInput

#: Called with what a layer hands on.
HandOn = Callable[[Any], None]


class LayerRunner:
    """The layer's step on whichever worker has it at hand, eager or as a CUDA graph; never on two at a time.

    `index`: of the layer in its stack of `count` layers.
    """

    def __init__(self, name: str, layer: LocalLayer, step: Step, *, index: int, count: int) -> None:
        self.name = name
        self.layer = layer
        self.index = index
        self._count = count
        self._step = step
        self._graph: StepGraph | None = None
        # On a GPU: after which the layer's weights are those of the last update.
        self._updated: Any = None

    def capture(self, example: TrainBatch, source: WorkerInput, force: bool) -> TrainBatch:
        """Put the layer's step into a CUDA graph if it can be, and return what the next layer would get for `example`.

        Call it before the first batch, while every worker waits: nothing else may use a GPU during a capture.
        """
        layers = [(self.name, self.layer)]
        example.x, example.y = to_device((example.x, example.y), source.device)
        if source.copies and self._graph is None:
            self._graph = make_graph(layers, self._step, example, source.stream, force=force)
        return preview(layers, self._step, example)

    def drop_stale_graph(self) -> bool:
        """Forget a graph that no longer is the layer's step, and return whether it was one; call it as `capture`."""
        stale = self._graph is not None and self._graph.stale()
        if stale:
            self._graph = None
        return stale

    def take(self, snapshot: Snapshot, source: WorkerInput) -> None:
        """Have the snapshot take the layer's state."""
        source.order_after(self._updated)
        snapshot.take(self.name, self.layer)

    def infer(self, batch: PredictBatch, source: WorkerInput) -> None:
        """Run the layer's inference on `batch`."""
        source.order_after(self._updated)
        self._step.infer(self.name, self.layer, batch)
        source.record_output(batch)
        # A state that inference changes, such as a counter in a buffer, is the next worker's to wait for as well.
        self._updated = source.record_done(self._updated)

    def train(self, batch: TrainBatch, source: WorkerInput, hand_on: HandOn) -> float:
        """Train the layer on `batch`, hand it on, and return the seconds of work."""
        start = time.perf_counter()
        averaging = self.layer.averaging
        waited = 0.0 if averaging is None else averaging.waited
        source.order_after(self._updated)
        # A smaller last batch does not fit the graph that the others run as.
        if self._graph is not None and self._graph.fits(batch):
            with self._step.span(self.name, batch.number, "forward"):
                self._graph.run(batch)
            source.record_output(batch)
            self._updated = source.record_done(self._updated)
            stop = time.perf_counter()
            hand_on(batch)
            return stop - start
        number = batch.number
        last = self.index + 1 == (batch.layers or self._count)
        self._step.forward(self.name, self.layer, batch)
        guard = batch.guard  # once the batch is handed on, the next layer puts its own there
        source.record_output(batch)
        if not last:
            hand_on(batch)
        with self._step.span(self.name, number, "backward"):
            self.layer.backward_and_update()
        self._updated = source.record_done(self._updated)
        stop = time.perf_counter()
        if last:
            hand_on(batch)
        elif guard is not None:
            # The next layer may have read its input already, and would not see what the update has just changed, such
            # as a parameter of g that was handed on as it is.
            guard.check()
        return stop - start - (0.0 if averaging is None else averaging.waited - waited)
