"""The base of local objectives that need no target codes: a layer with heads that read what it hands on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Kept
from ..given import check_number, check_whole
from ..layer import LearningRate, LocalLayer
from ..nested import detach
from ..rates import checked_rates
from .association import full_precision
from .part import MakeOptimizer


class Headed(LocalLayer):
    """A layer of `f` and its heads; labels int64 (B,) are its target, and go on to the next layer as they are.

    A subclass names its losses and implements `local_losses`. The head "classifier" maps what `f` returns to logits
    (B, C), from which a prediction of this depth is made.

    Args:
        f: The network's own layer; it may take and return any nested structure of tensors.
        heads: Modules by name, among them "classifier".
        lr: A number.
        optimizer: Called with one parameter group.

    Raises:
        ValueError: For a learning rate that is not a finite number >= 0, or if there is no parameter to train.
    """

    takes = hands_on = "labels"

    def __init__(
        self, f: nn.Module, heads: Mapping[str, nn.Module], lr: LearningRate, optimizer: MakeOptimizer
    ) -> None:
        super().__init__()
        self.f = f
        self.heads = nn.ModuleDict(heads)
        rate = checked_rates(type(self).__name__, lr, [])[None]
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trained:
            raise ValueError(f"{type(self).__name__}: neither f nor a head has a parameter to train")
        self.optimizer = optimizer([{"params": trained, "lr": rate}])

    def local_losses(self, x: Any, hidden: Any, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses by name, 0-d with their graph, from the layer's input, what `f` returned, and the labels.

        None of these may be changed in place.
        """
        raise NotImplementedError(f"{type(self).__name__}.local_losses: implement it")

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return (f(x), labels, losses by name) of one batch."""
        hidden = self.f(x)
        kept = Kept(hidden)
        losses = self.local_losses(x, hidden, y)
        kept.check("a head")
        return hidden, y, losses

    def classified(self, hidden: Any, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of the classifier's logits, a mean over the batch, 0-d."""
        logits = full_precision(self.heads["classifier"](hidden))
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def probed(self, hidden: Any, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the same for a classifier that only looks on: none of its gradient reaches `f`."""
        return self.classified(detach(hidden), labels, label_smoothing)

    @torch.no_grad()
    def hidden(self, x: Any) -> Any:
        """Return f(x), without gradients."""
        return self.f(x)

    @torch.no_grad()
    def readout(self, hidden: Any) -> Any:
        """Return the classifier's logits (B, C), without gradients."""
        return self.heads["classifier"](hidden)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return `f` and the classifier as the modules behind "hidden" and "readout"."""
        return {"hidden": [self.f], "readout": [self.heads["classifier"]], "decode": []}


def check_settings(*, label_smoothing: float, code_dim: int = 1, depth: int = 1, **weights: float) -> None:
    """Raise ValueError for values that the settings of objectives with classifiers cannot have."""
    check_whole("code_dim", code_dim)
    check_whole("depth", depth, remark=", the bridge alone")
    for name, weight in weights.items():
        check_number(name, weight, lambda one: 0 <= one < math.inf, "a finite number >= 0")
    check_number("label_smoothing", label_smoothing, lambda one: 0 <= one < 1, "a number from 0 to below 1")


def check_temperature(temperature: float) -> None:
    """Raise ValueError for what cosines cannot be divided by."""
    check_number("temperature", temperature, lambda one: 0 < one < math.inf, "a finite number > 0")


def perceptron(width: int, depth: int, out: int) -> list[nn.Module]:
    """Return what follows a bridge to `width` units: `depth` linear layers, a rectifier before each; the last to `out`.

    Nothing for a depth of 0.
    """
    widths = [width] * depth + [out]
    return [module for number in range(depth) for module in (nn.ReLU(), nn.Linear(widths[number], widths[number + 1]))]
