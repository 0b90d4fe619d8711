"""What every schedule does with one layer and one batch: the same calls, whichever thread makes them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .base import AL, LearningRate
from .nested import versions
from .randomness import enter_stream
from .threads import Autocast
from .trace import Trace

__all__ = ["Batch", "LocalLosses", "StageError", "Step"]

LocalLosses = list[tuple[Tensor, Tensor]]


class StageError(RuntimeError):
    """A layer failed on a batch (None: while its worker started); the original exception is the `__cause__`.

    What fails while a batch is made has the layer "loader" (the iterable of batches), "target" (the stack's) or
    "lr" (the caller's).
    """

    def __init__(self, layer: str, batch: int | None, cause: BaseException) -> None:
        when = "before its first batch" if batch is None else f"on batch {batch}"
        who = layer if layer in ("loader", "target", "lr") else f"layer {layer!r}"
        super().__init__(f"{who} failed {when}: {type(cause).__name__}: {cause}")
        self.layer = layer
        self.batch = batch
        self.__cause__ = cause


@dataclass(eq=False)
class Batch:
    """What travels from layer to layer: the batch's number and learning rate go with its tensors.

    `train`: False for a batch that is only predicted on; `codes` then gets b's output of every layer. `event`: on a
    GPU, what a reader of the tensors waits for.
    """

    number: int
    x: Any
    y: Any = None
    lr: LearningRate | None = None
    train: bool = True
    losses: LocalLosses = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    event: Any = None
    _seal: tuple[str, list[int]] | None = None

    def seal(self, layer: str) -> None:
        """Note the state of the tensors that `layer` hands on."""
        self._seal = layer, versions((self.x, self.y))

    def verify(self) -> None:
        """Raise RuntimeError if the tensors were changed after they were handed on."""
        if self._seal is not None and versions((self.x, self.y)) != self._seal[1]:
            raise RuntimeError(
                f"layer {self._seal[0]!r} handed on a tensor and changed it in place afterwards, so what comes next "
                "would depend on timing; return a new tensor from f and g (for example with .clone())"
            )

    def unseal(self) -> None:
        """Forget the state: the tensors have been copied."""
        self._seal = None


class Step:
    """One layer's work on one batch. `autocast`: the state of the thread that called the schedule."""

    def __init__(self, seed: int, trace: Trace | None) -> None:
        self.seed = seed
        self.trace = trace
        self.autocast = Autocast()

    def forward(self, name: str, layer: AL, batch: Batch) -> None:
        """Run one layer forward on one batch, which then holds the layer's outputs and losses."""
        with self.span(name, batch, "forward"):
            batch.verify()
            self.enter(name, layer, batch)
            with torch.enable_grad(), self.autocast.entered():
                batch.x, batch.y = layer(batch.x, batch.y)
            batch.losses.append(layer.loss())
            batch.seal(name)

    def enter(self, name: str, layer: AL, batch: Batch) -> None:
        """Set the layer's random streams and learning rate for the batch."""
        enter_stream(layer, self.seed, name, batch.number)
        if batch.lr is not None:
            layer.set_lr(batch.lr)

    def backward(self, name: str, layer: AL, number: int) -> None:
        """Run one layer's backward pass and update for batch `number`, which may be in the next layer by now."""
        with self.span(name, number, "backward"):
            layer.backward_and_update()

    def infer(self, name: str, layer: AL, batch: Batch) -> None:
        """Run one layer's f and b on one batch, which then holds both outputs."""
        with self.span(name, batch, "inference"), self.autocast.entered():
            batch.x = layer.inference(batch.x, "f")
            batch.codes.append(layer.inference(batch.x, "b"))

    def decode(self, layers: list[AL], codes: list[Any]) -> list[Any]:
        """Return the prediction of every depth from the bridges' outputs: h_k, .., h_1 of each."""
        predictions = []
        with self.autocast.entered():
            for depth, code in enumerate(codes, start=1):
                for layer in reversed(layers[:depth]):
                    code = layer.inference(code, "h")
                predictions.append(code)
        return predictions

    def span(self, name: str, batch: Batch | int, phase: str) -> AbstractContextManager[None]:
        """Record the time inside the `with` block, if there is a trace."""
        if self.trace is None:
            return nullcontext()
        return self.trace.span(name, batch if isinstance(batch, int) else batch.number, phase)
