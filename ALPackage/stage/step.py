"""What every schedule does with one layer and one batch: the same calls, whichever thread makes them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import StageError
from ..layer import LocalLayer
from ..randomness import Dropout, dropouts, seed_dropouts
from ..rates import scaled
from .batch import InPlaceGuard, PredictBatch, TrainBatch
from .caller import CallerState
from .optimizer_watch import OptimizerWatch
from .threads import Autocast
from .trace import Trace

UNRECORDED = nullcontext()
#: The losses of no rows.
UNKNOWN = torch.full((), float("nan"))


class Step:
    """One layer's work on one batch. `seed`: root of the random streams. `watch`: over the optimizers, in a run.

    `autocast` and `caller`: what holds on the thread that has begun the run. Backward and update are the layer's own
    `backward_and_update`, which the schedules call inside a `span`.
    """

    def __init__(self, seed: int, trace: Trace | None) -> None:
        self.seed = seed
        self.trace = trace
        self.watch: OptimizerWatch | None = None
        self.begin(threads=False)

    def begin(self, *, threads: bool) -> None:
        """Begin a run: take the calling thread's state, and look for the layers' `Dropout`s again.

        `threads`: whether layers work on others.
        """
        self.autocast = Autocast()
        self.caller = CallerState(empty=not threads)
        self._dropouts: dict[str, list[Dropout]] = {}
        self._row_dropouts: dict[str, list[Dropout]] = {}

    def end(self) -> None:
        """End a run: keep nothing that the calling thread's context holds, perhaps the schedule itself."""
        self.caller = CallerState(empty=True)
        self.watch = None

    def forward(self, name: str, layer: LocalLayer, batch: TrainBatch) -> None:
        """Run one layer forward on one batch, which then holds the layer's outputs and losses."""
        with self.span(name, batch.number, "forward"):
            self.prepare(name, layer, batch)
            if batch.empty:  # the other replicas have its rows
                batch.losses.append(dict.fromkeys(layer.loss_names, UNKNOWN))
                return
            with torch.enable_grad(), self.autocast.context():
                x, y = layer(batch.x, batch.y)
            batch.losses.append(layer.losses())
            # Once, after the layer has read its input: this shows changes made before the reading and during it.
            if batch.guard is not None:
                batch.guard.check()
            batch.x, batch.y = x, y
            batch.guard = InPlaceGuard(name, (x, y))

    def prepare(self, name: str, layer: LocalLayer, batch: TrainBatch) -> None:
        """Set the layer's random streams and learning rate for the batch."""
        if (drops := self._dropouts.get(name)) is None:  # walking the modules costs more than all else here
            drops = self._dropouts[name] = dropouts(layer)
        seed_dropouts(layer, drops, self.seed, name, batch.number)
        if layer.averaging is not None and batch.share is not None:
            if (rows := self._row_dropouts.get(name)) is None:
                rows = self._row_dropouts[name] = layer.row_dropouts()
            layer.averaging.begin(layer, batch.share, rows)
        if batch.lr is not None:
            rate = batch.lr if layer.lr_share == 1.0 else scaled(batch.lr, layer.lr_share)
            if self.watch is None:
                layer.set_lr(rate)
            else:
                self.watch.set_lr(name, layer, rate)

    def infer(self, name: str, layer: LocalLayer, batch: PredictBatch) -> None:
        """Run one layer's `hidden` and `readout` on one batch, which then holds both outputs."""
        if batch.empty:
            batch.codes.append(None)
            return
        with self.span(name, batch.number, "inference"), self.autocast.context():
            x = layer.hidden(batch.x)
            # A copy, because it is decoded later: the layer may reuse its output's memory for the next batch by then.
            batch.codes.append(tree_map(_copy, layer.readout(x)))
            if batch.guard is not None:
                batch.guard.check()
            batch.x = x
            batch.guard = InPlaceGuard(name, x)

    def decode(self, layers: list[tuple[str, LocalLayer]], batch: PredictBatch) -> list[Any]:
        """Return the prediction of every depth k: decode_1(.. decode_k(code_k)). Raises StageError."""
        predictions = []
        with self.autocast.context():
            for depth, code in enumerate(batch.codes, start=1):
                for name, layer in reversed(layers[:depth]):
                    try:
                        code = layer.decode(code)
                    except (Exception, GeneratorExit) as error:
                        raise StageError(name, batch.number, error) from error
                predictions.append(code)
        return predictions

    def span(self, name: str, number: int, phase: str) -> AbstractContextManager[None]:
        """Record the time inside the `with` block, if there is a trace."""
        return UNRECORDED if self.trace is None else self.trace.span(name, number, phase)


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
