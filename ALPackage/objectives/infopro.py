"""Information propagation: every layer keeps what is needed to reconstruct the input, and to tell the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layer import LearningRate
from .decoders import InputValues, decoder_of, reconstruction_error
from .headed import Headed, check_settings
from .labels import OfLabels
from .local_classifier import auxiliary
from .part import MakeOptimizer, Part

#: The target behind the first layer in words, for `LocalLayer.takes`.
WITH_INPUT = "labels with the network's input"


@dataclass(frozen=True, kw_only=True)
class InformationPropagation(OfLabels):
    """A decoder to the network's input and an auxiliary classifier at every layer but the last, which has a classifier.

    Wang, Ni, Song, Yang & Huang, Revisiting Locally Supervised Learning: An Alternative to End-to-End Training (ICLR
    2021), equation 8, with cross-entropy as its second term (section 3.3), and their code. From maps the decoder is
    theirs: bilinear interpolation, two convolutions. Ours: their images are within [0, 1] and compared by binary
    cross-entropy, inputs here are normalized and compared by squared difference; tokens are reconstructed as the
    embeddings with which training began, at real positions; `ALPackage.objectives.decoders` has the rest. Their weights
    differ between networks and change with depth; these are the same for all layers. Their auxiliary classifier has a
    convolution; the layer's own bridge takes its place.

    Attributes:
        reconstruction: Weight of the squared difference.
        classification: Weight of the cross-entropy beside it; it is 1 in the last layer, which reconstructs nothing.
        depth: Of the auxiliary network: 1: the bridge alone maps to the classes; 2 and 3: to `code_dim` units, and so
            many linear layers less one follow it, with a rectifier before each.
        code_dim: Units between the linear layers.
        label_smoothing: Share of the target that goes to all classes alike.

    Raises:
        ValueError: For a value that a setting cannot have.

    Example:
        >>> net = [nn.Linear(4, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)]
        >>> stack = to_al(net, 3, example=torch.randn(2, 4), objective="infopro")
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> [list(losses) for losses in stack.losses()]
        [['reconstruction', 'ce'], ['ce']]
    """

    needs_example: ClassVar[bool] = True

    reconstruction: float = 0.5
    classification: float = 1.0
    depth: int = 1
    code_dim: int = 128
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_settings(
            label_smoothing=self.label_smoothing,
            code_dim=self.code_dim,
            depth=self.depth,
            reconstruction=self.reconstruction,
            classification=self.classification,
        )

    def layers(
        self,
        network: Sequence[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, InfoProLayer]:
        """Return the layers of a network by name; labels are the target of the first.

        Raises ValueError for an input that cannot be reconstructed.
        """
        values = InputValues(network[0])
        example, _ = values(network[0].given)
        made: dict[str, InfoProLayer] = {}
        for part in network:
            last = part is network[-1]
            made[part.name] = InfoProLayer(
                part.f,
                auxiliary(part, n_classes, self.depth, self.code_dim),
                lr,
                optimizer,
                decoder=None if last else decoder_of(part, example, self.code_dim),
                original=None if made or last else values,
                first=not made,
                reconstruction=self.reconstruction,
                classification=1.0 if last else self.classification,
                label_smoothing=self.label_smoothing,
            )
        return made


class InfoProLayer(Headed):
    """A layer that trains on the reconstruction of its network's input and on the cross-entropy of its own classifier.

    The target of the first layer is labels int64 (B,). Behind it (labels, values, real) travel, so that the input,
    which training alone needs, reaches every decoder and `f` never sees it.

    Args:
        f: The network's own layer.
        classifier: From what `f` returns to logits (B, C).
        lr: Learning rate.
        optimizer: Called with one parameter group; Adam by default.
        decoder: From what `f` returns to the values of the network's input; None for the last layer, which has none.
        original: For the first of several layers: returns from its input what is to be reconstructed, (values, real).
        first: Whether it is the first layer, whose target is the labels alone.
        reconstruction, classification: Weights of the losses.
        label_smoothing: Share of the target that goes to all classes alike.
    """

    row_separable = True

    def __init__(
        self,
        f: nn.Module,
        classifier: nn.Module,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
        *,
        decoder: nn.Module | None = None,
        original: nn.Module | None = None,
        first: bool = False,
        reconstruction: float = 0.5,
        classification: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        heads = {"classifier": classifier, "decoder": decoder, "original": original}
        super().__init__(f, {name: head for name, head in heads.items() if head is not None}, lr, optimizer)
        self.reconstruction, self.classification = reconstruction, classification
        self.label_smoothing = label_smoothing
        self.loss_names = ("ce",) if decoder is None else ("reconstruction", "ce")
        self.loss_titles = {"ce": "cross-entropy"}
        self.takes = "labels" if first else WITH_INPUT
        self.hands_on = "labels" if decoder is None else WITH_INPUT

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return (f(x), (labels, values, real), losses by name) of one batch; the last layer returns the labels."""
        if "original" in self.heads:
            y = (y, *self.heads["original"](x))
        hidden, y, losses = super().compute(x, y)
        return hidden, y if "decoder" in self.heads or isinstance(y, Tensor) else y[0], losses

    def local_losses(self, x: Any, hidden: Any, y: Any) -> dict[str, Tensor]:
        """Return the losses with their weights, means over the rows of the batch."""
        if "decoder" not in self.heads:
            labels = y if isinstance(y, Tensor) else y[0]
            return {"ce": self.classification * self.classified(hidden, labels, self.label_smoothing)}
        labels, values, real = y
        error = reconstruction_error(self.heads["decoder"](hidden), (values, real))
        return {
            "reconstruction": self.reconstruction * error,
            "ce": self.classification * self.classified(hidden, labels, self.label_smoothing),
        }
