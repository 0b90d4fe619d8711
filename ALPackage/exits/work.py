"""What inference costs at every depth, in floating-point operations: counted, never timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..flops import counting
from ..stack import ALStack


@dataclass(frozen=True)
class Work:
    """Floating-point operations per sample, by depth.

    Attributes:
        hidden: Of each layer's `hidden`.
        reading: Of the prediction at each depth: the layer's `readout`, and `decode` of it and all layers before.
    """

    hidden: Sequence[float]
    reading: Sequence[float]

    @property
    def full(self) -> float:
        """Those of all layers, with the last prediction alone."""
        return sum(self.hidden) + self.reading[-1]

    def at(self, depth: int) -> float:
        """Return those of the first `depth` layers, with the last prediction alone, as a share of `full`."""
        return (sum(self.hidden[:depth]) + self.reading[depth - 1]) / self.full


@torch.no_grad()
def count_work(stack: ALStack, x: Any) -> Work:
    """Return the mean work per sample of an input x of the stack. Raises ValueError where nothing can be counted."""
    rows = stack[0].rows(x)
    hidden: list[float] = []
    reading: list[float] = []
    layers = list(stack)
    with counting(stack) as operations:
        for depth, layer in enumerate(layers, start=1):
            before = operations()
            x = layer.hidden(x)
            hidden.append((operations() - before) / rows)
            before = operations()
            code = layer.readout(x)
            for one in reversed(layers[:depth]):
                code = one.decode(code)
            reading.append((operations() - before) / rows)
    work = Work(hidden, reading)
    if not work.full > 0:
        raise ValueError(
            "early exit: no floating-point operations can be counted in these layers (torch's FlopCounterMode knows "
            "matrix products and convolutions), so there is no work to save; give thresholds yourself"
        )
    return work
