"""Variance, invariance and covariance of every layer's projection, against the labels: DeInfoReg.

Legend: B batch, D width of the projection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layer import LearningRate
from .association import full_precision
from .codes import to_unit
from .headed import Headed, check_settings
from .labels import OfLabels
from .local_classifier import auxiliary
from .part import MakeOptimizer, Part
from .similarity_matrix import LEAST, length, similarity_mismatch

#: Keeps the square root of a variance from being steep at zero.
EPSILON = 1e-7


@dataclass(frozen=True, kw_only=True)
class InformationRegularization(OfLabels):
    """Each layer's projection has to vary over the batch, to be alike where labels are, and not to repeat itself.

    Huang, Lin & Chen, DeInfoReg: A Decoupled Learning Framework with Information Regularization for Better Training
    Throughput (arXiv 2506.18193), in the form of the authors' code: the labels' embedding is their one-hot code, which
    is not learned, and invariance compares the similarities of all pairs of samples with those of the labels.

    Every layer, the last one too, has these terms and a classifier that only looks on: its cross-entropy trains the
    classifier alone. The authors' code can do this ("unmerge"). By default its classifiers read the projection, and a
    thousandth of their cross-entropy reaches the layer; not so here. Their projection of maps is a perceptron of the
    whole map, 2048 units wide; here it is the layer's own bridge, which pools, to `code_dim` units, with `depth` - 1
    linear layers more. They take the pooled states of texts as they are; here the bridge maps these too.

    Attributes:
        variance, invariance, covariance: Weights of the terms.
        depth: Of the projection: 1: the bridge alone; 2 and 3: that many linear layers less one follow it.
        code_dim: Width of the projection.
        label_smoothing: Share of the target that goes to all classes alike, in the classifiers' cross-entropy.

    Raises:
        ValueError: For a value that a setting cannot have.

    Example:
        >>> net = [nn.Linear(4, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)]
        >>> stack = to_al(net, 3, example=torch.randn(2, 4), objective="deinfo")
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> [*stack.losses()[0]]
        ['variance', 'invariance', 'covariance', 'probe']
    """

    needs_example: ClassVar[bool] = False

    variance: float = 1.0
    invariance: float = 1.0
    covariance: float = 1.0
    depth: int = 1
    code_dim: int = 128
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_settings(
            label_smoothing=self.label_smoothing,
            code_dim=self.code_dim,
            depth=self.depth,
            variance=self.variance,
            invariance=self.invariance,
            covariance=self.covariance,
        )

    def layers(
        self,
        network: Iterable[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, DeInfoLayer]:
        """Return the layers of a network by name; labels are their target."""
        weights = self.variance, self.invariance, self.covariance
        return {
            part.name: DeInfoLayer(
                part.f,
                part.bridge(n_classes),
                auxiliary(part, self.code_dim, self.depth, self.code_dim),
                n_classes,
                lr,
                optimizer,
                weights=weights,
                label_smoothing=self.label_smoothing,
            )
            for part in network
        }


class DeInfoLayer(Headed):
    """A layer that trains on the three terms of its projection, with a classifier that only looks on.

    Args:
        f: The network's own layer.
        classifier: From what `f` returns to logits (B, n_classes).
        projector: From what `f` returns to its projection (B, D).
        n_classes: How many classes.
        lr: Learning rate.
        optimizer: Called with one parameter group; Adam by default.
        weights: Of variance, invariance and covariance.
        label_smoothing: Share of the target that goes to all classes alike, in the classifier's cross-entropy.
    """

    loss_names = ("variance", "invariance", "covariance", "probe")
    loss_titles = MappingProxyType({"probe": "cross-entropy beside it"})
    #: Every sample is compared with all others of its batch.
    row_separable = False

    def __init__(
        self,
        f: nn.Module,
        classifier: nn.Module,
        projector: nn.Module,
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
        *,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(f, {"classifier": classifier, "projector": projector}, lr, optimizer)
        self.n_classes, self.weights, self.label_smoothing = n_classes, weights, label_smoothing

    def local_losses(self, x: Any, hidden: Any, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms with their weights, over all pairs in the batch, and the classifier's cross-entropy."""
        terms = information(self.heads["projector"](hidden), labels, self.n_classes)
        weighted = {name: weight * term for weight, (name, term) in zip(self.weights, terms.items(), strict=True)}
        return {**weighted, "probe": self.probed(hidden, labels, self.label_smoothing)}


def information(projection: Tensor, labels: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Return the terms "variance", "invariance" and "covariance" of a projection (B, D) scaled to unit length, 0-d.

    As in the authors' code: the first is the mean of what the standard deviations lack to 1, divided by B; the second
    is the squared difference of similarities; the third is the sum of the squared covariances of different units,
    divided by D. A sample whose projection is shorter than 1e-6 counts as zero, and gets no gradient.
    """
    with torch.autocast(projection.device.type, enabled=False):
        projection = full_precision(projection)
        unit = to_unit(projection.masked_fill(length(projection.detach()) <= LEAST, 0.0))
        rows, width = unit.shape
        centered = unit - unit.mean(0)
        products = centered.T @ centered
        covariances = (products - torch.diag(products.diagonal())) / rows
        deviations = (products.diagonal() / max(rows - 1, 1) + EPSILON).sqrt()
        return {
            "variance": (1 - deviations).relu().mean() / rows,
            "invariance": similarity_mismatch(unit, labels, n_classes),
            "covariance": covariances.square().sum() / width,
        }
