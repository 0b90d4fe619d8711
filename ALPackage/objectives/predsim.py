"""Prediction and similarity matching: what Nokland & Eidnes call the "predsim" loss of a layer.

Legend: B batch, C channels, H, W height and width of maps, T positions, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..bridges import First, first_tensor
from ..given import check_number, check_whole
from ..layer import LearningRate
from .association import full_precision
from .headed import Headed, check_settings
from .labels import OfLabels
from .part import MakeOptimizer, Part
from .similarity_matrix import similarity_mismatch


@dataclass(frozen=True, kw_only=True)
class PredictionAndSimilarity(OfLabels):
    """A linear classifier at every layer, and similarities between samples that match those between their labels.

    Nokland & Eidnes, Training Neural Networks with Local Error Signals (ICML 2019), equations 1 to 4, and their code.
    From maps the classifier reads averages, as many as `inputs` allows. The similarities are those of what a 3x3
    convolution makes of the maps, of which the standard deviations over all positions count; for vectors a linear map
    takes its place. The classifiers start at zero. All this is the authors'. Ours: what tokens (and anything else) are
    to both is said by the layer's own bridge, which pools them; and a layer here may have several convolutions, where
    theirs has one.

    Attributes:
        beta: Share of the similarity loss; the cross-entropy has the rest.
        inputs: At most this many averages of a layer's maps are what its classifier reads, if 1 per channel allow it.
        label_smoothing: Share of the target that goes to all classes alike, in the cross-entropy.

    Raises:
        ValueError: For a value that a setting cannot have.

    Example:
        >>> net = [nn.Linear(4, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)]
        >>> stack = to_al(net, 3, example=torch.randn(2, 4), objective="predsim")
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> [list(losses) for losses in stack.losses()]
        [['sim', 'pred'], ['sim', 'pred']]
    """

    needs_example: ClassVar[bool] = True

    beta: float = 0.99
    inputs: int = 4096
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_settings(label_smoothing=self.label_smoothing)
        check_number("beta", self.beta, lambda one: 0 <= one <= 1, "a number from 0 to 1")
        check_whole("inputs", self.inputs)

    def layers(
        self,
        network: Iterable[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, PredSimLayer]:
        """Return the layers of a network by name; labels are their target."""
        return {
            part.name: PredSimLayer(
                part.f,
                linear_classifier(part, n_classes, self.inputs),
                similarity_features(part),
                n_classes,
                lr,
                optimizer,
                beta=self.beta,
                label_smoothing=self.label_smoothing,
            )
            for part in network
        }


def linear_classifier(part: Part, n_classes: int, inputs: int) -> nn.Module:
    """Return a new linear map, with weights of zero, from what a layer returns to logits; it pools maps and tokens."""
    features = first_tensor(part.returned)
    if features is None or features.dim() not in (2, 4):
        made = part.bridge(n_classes)
        linear = made[-1] if isinstance(made, nn.Sequential) else made
        if isinstance(linear, nn.Linear):
            nn.init.zeros_(linear.weight)
        return made
    front: list[nn.Module] = [] if isinstance(part.returned, Tensor) else [First()]
    width = features.shape[1]
    if features.dim() == 4:
        pool, (rows, columns) = pooling(width, features.shape[2], features.shape[3], inputs)
        front += [pool, nn.Flatten()]
        width *= rows * columns
    linear = nn.Linear(width, n_classes)
    nn.init.zeros_(linear.weight)
    return nn.Sequential(*front, linear)


def pooling(channels: int, height: int, width: int, inputs: int) -> tuple[nn.Module, tuple[int, int]]:
    """Return what averages maps to at most `inputs` numbers, as the authors' code does, and its rows and columns.

    Windows double, first in height and then in width, until few enough are left; they do not overlap, and where they do
    not fit the maps are padded with zeros, which count.
    """
    windows = [1, 1]
    left = [height, width]
    sizes = [height, width]
    while channels * left[0] * left[1] > inputs and windows[0] < height:
        for side in (0, 1):
            if channels * left[0] * left[1] > inputs:
                windows[side] *= 2
                left[side] = -(-sizes[side] // windows[side])
    if windows == [1, 1]:
        return nn.Identity(), (height, width)
    padding = [window * (kept - size // window) // 2 for window, kept, size in zip(windows, left, sizes, strict=True)]
    return nn.AvgPool2d((windows[0], windows[1]), padding=(padding[0], padding[1])), (left[0], left[1])


def similarity_features(part: Part) -> nn.Module:
    """Return a new module from what a layer returns to the features (B, D) whose similarities count."""
    features = first_tensor(part.returned)
    front: list[nn.Module] = [] if isinstance(part.returned, Tensor) else [First()]
    if features is not None and features.dim() == 4:
        channels, height = features.shape[1:3]
        # As the authors': of few channels, or where there is one position, the values themselves count.
        reading = Spread() if channels > 3 and height > 1 else nn.Flatten()
        return nn.Sequential(*front, nn.Conv2d(channels, channels, 3, padding=1, bias=False), reading)
    if features is not None and features.dim() == 2:
        return nn.Sequential(*front, nn.Linear(features.shape[1], features.shape[1], bias=False))
    assert features is not None
    return part.bridge(features.shape[-1])


class Spread(nn.Module):
    """Return the standard deviation of every map over its positions: (B, C, H, W) -> (B, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return it, in float32 if autocast made the maps half precision."""
        return full_precision(maps).flatten(2).std(2)


class PredSimLayer(Headed):
    """A layer that trains on beta times its similarity loss plus (1 - beta) times its cross-entropy.

    Args:
        f: The network's own layer.
        classifier: From what `f` returns to logits (B, n_classes).
        similarity: From what `f` returns to the features (B, D) whose similarities count.
        n_classes: How many classes.
        lr: Learning rate.
        optimizer: Called with one parameter group; Adam by default.
        beta: Share of the similarity loss.
        label_smoothing: Share of the target that goes to all classes alike, in the cross-entropy.
    """

    loss_names = ("sim", "pred")
    loss_titles = MappingProxyType({"sim": "similarity", "pred": "prediction"})
    #: Every sample is compared with all others of its batch.
    row_separable = False

    def __init__(
        self,
        f: nn.Module,
        classifier: nn.Module,
        similarity: nn.Module,
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
        *,
        beta: float = 0.99,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(f, {"classifier": classifier, "similarity": similarity}, lr, optimizer)
        self.n_classes, self.beta, self.label_smoothing = n_classes, beta, label_smoothing

    def local_losses(self, x: Any, hidden: Any, labels: Tensor) -> dict[str, Tensor]:
        """Return both losses with their shares; the similarities are those of all pairs in the batch."""
        mismatch = similarity_mismatch(self.heads["similarity"](hidden), labels, self.n_classes)
        prediction = self.classified(hidden, labels, self.label_smoothing)
        return {"sim": self.beta * mismatch, "pred": (1 - self.beta) * prediction}
