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
from .batch import Batch
from .threads import Autocast
from .trace import Trace

UNRECORDED = nullcontext()


class Step:
    """One layer's work on one batch. `autocast`: the state of the thread that called the schedule."""

    def __init__(self, seed: int, trace: Trace | None) -> None:
        self.seed = seed
        self.trace = trace
        self.begin()

    def begin(self) -> None:
        """Begin a run: take the calling thread's autocast, and look for the layers' `Dropout`s anew, once."""
        self.autocast = Autocast()
        self._dropouts: dict[str, list[Dropout]] = {}

    def forward(self, name: str, layer: LocalLayer, batch: Batch) -> None:
        """Run one layer forward on one batch, which then holds the layer's outputs and losses."""
        with self.span(name, batch, "forward"):
            batch.verify()
            self.enter(name, layer, batch)
            with torch.enable_grad(), self.autocast.entered():
                batch.x, batch.y = layer(batch.x, batch.y)
            batch.losses.append(layer.losses())
            batch.verify()  # again, for what has happened meanwhile
            batch.seal(name)

    def enter(self, name: str, layer: LocalLayer, batch: Batch) -> None:
        """Set the layer's random streams and learning rate for the batch."""
        if (drops := self._dropouts.get(name)) is None:  # walking the modules costs more than all else here
            drops = self._dropouts[name] = dropouts(layer)
        seed_dropouts(layer, drops, self.seed, name, batch.number)
        if batch.lr is not None:
            layer.set_lr(batch.lr)

    def backward(self, name: str, layer: LocalLayer, number: int) -> None:
        """Run one layer's backward pass and update for batch `number`, which may be in the next layer by now."""
        with self.span(name, number, "backward"):
            layer.backward_and_update()

    def infer(self, name: str, layer: LocalLayer, batch: Batch) -> None:
        """Run one layer's f and b on one batch, which then holds both outputs."""
        with self.span(name, batch, "inference"), self.autocast.entered():
            batch.verify()
            batch.x = layer.hidden(batch.x)
            # Decoded when b may have gone on to the next batch, so it must be no tensor that b uses again.
            batch.codes.append(tree_map(_copy, layer.readout(batch.x)))
            batch.verify()
            batch.seal(name)

    def decode(self, layers: list[tuple[str, LocalLayer]], batch: Batch) -> list[Any]:
        """Return the prediction of every depth from the bridges' outputs: h_k, .., h_1 of each. Raises StageError."""
        predictions = []
        with self.autocast.entered():
            for depth, code in enumerate(batch.codes, start=1):
                for name, layer in reversed(layers[:depth]):
                    try:
                        code = layer.decode(code)
                    except (Exception, GeneratorExit) as error:
                        raise StageError(name, batch.number, error) from error
                predictions.append(code)
        return predictions

    def span(self, name: str, batch: Batch | int, phase: str) -> AbstractContextManager[None]:
        """Record the time inside the `with` block, if there is a trace."""
        if self.trace is None:
            return UNRECORDED
        return self.trace.span(name, batch if isinstance(batch, int) else batch.number, phase)


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
