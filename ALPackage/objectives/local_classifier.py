"""Greedy layer-wise classification: every layer trains on the cross-entropy of a classifier of its own ("ce")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layer import LearningRate
from .headed import Headed, check_settings, perceptron
from .labels import OfLabels
from .part import MakeOptimizer, Part


@dataclass(frozen=True, kw_only=True)
class LocalClassifier(OfLabels):
    """Local cross-entropy, through an auxiliary network from every layer to the classes.

    Belilovsky, Eickenberg & Oyallon, Decoupled Greedy Learning of CNNs (ICML 2020), section 3; for auxiliary networks
    that are deeper, Ma, Wu, Zhao & Lu, AugLocal (ICLR 2024).

    Attributes:
        depth: Of the auxiliary network: 1: the bridge alone maps to the classes; 2 and 3: to `code_dim` units, and so
            many linear layers less one follow it, with a rectifier before each.
        code_dim: Units between the linear layers.
        label_smoothing: Share of the target that goes to all classes alike.

    Raises:
        ValueError: For a value that a setting cannot have.

    Example:
        >>> net = [nn.Linear(4, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)]
        >>> stack = to_al(net, 3, example=torch.randn(2, 4), objective="ce", depth=2)
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> [list(losses) for losses in stack.losses()]
        [['ce'], ['ce']]
    """

    needs_example: ClassVar[bool] = False

    depth: int = 1
    code_dim: int = 128
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_settings(code_dim=self.code_dim, depth=self.depth, label_smoothing=self.label_smoothing)

    def layers(
        self,
        network: Iterable[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, ClassifierLayer]:
        """Return the layers of a network by name; labels are their target."""
        return {
            part.name: ClassifierLayer(
                part.f, auxiliary(part, n_classes, self.depth, self.code_dim), lr, optimizer, self.label_smoothing
            )
            for part in network
        }


def auxiliary(part: Part, n_classes: int, depth: int, width: int) -> nn.Module:
    """Return a new network from what a layer returns to logits (B, C)."""
    if depth == 1:
        return part.bridge(n_classes)
    return nn.Sequential(part.bridge(width), *perceptron(width, depth - 1, n_classes))


class ClassifierLayer(Headed):
    """A layer that trains on the cross-entropy of its own classifier.

    Args:
        f: The network's own layer.
        classifier: From what `f` returns to logits (B, C).
        lr: Learning rate.
        optimizer: Called with one parameter group; Adam by default.
        label_smoothing: Share of the target that goes to all classes alike.
    """

    loss_names = ("ce",)
    loss_titles = MappingProxyType({"ce": "cross-entropy"})
    row_separable = True

    def __init__(
        self,
        f: nn.Module,
        classifier: nn.Module,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(f, {"classifier": classifier}, lr, optimizer)
        self.label_smoothing = label_smoothing

    def local_losses(self, x: Any, hidden: Any, labels: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of the classifier's logits, a mean over the batch."""
        return {"ce": self.classified(hidden, labels, self.label_smoothing)}
