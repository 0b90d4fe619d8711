"""Supervised contrastive learning in every layer, with a classifier beside it that only reads ("scl")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..given import check_word
from ..layer import LearningRate
from .association import full_precision
from .codes import to_unit
from .headed import Headed, check_settings, check_temperature, perceptron
from .labels import OfLabels
from .part import MakeOptimizer, Part


@dataclass(frozen=True, kw_only=True)
class SupervisedContrastive(OfLabels):
    """Supervised contrastive learning of every layer: samples of one class attract each other, all others repel.

    Ho, Wang, Lin & Chen, SCPL (arXiv 2602.00062), with the loss of Khosla et al., Supervised Contrastive Learning
    (NeurIPS 2020), equation 2, and one view per sample. As in the code of SCPL, the last layer's f has the contrastive
    loss too, and the classifier on top of it is trained without changing f. Here every layer has such a classifier, a
    bridge to the classes, so that there are predictions of every depth.

    Attributes:
        projector: From what a layer returns to the codes that are compared: "linear": the bridge, which has a hidden
            layer of its own in some models; "mlp": a rectifier and a linear layer more.
        temperature: Divides the cosines between codes; SCPL's 0.1 by default.
        code_dim: Width of the codes.
        label_smoothing: Share of the classifiers' target that goes to all classes alike.

    Raises:
        ValueError: For a value that a setting cannot have.

    Example:
        >>> net = [nn.Linear(4, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)]
        >>> stack = to_al(net, 3, example=torch.randn(2, 4), objective="scl", temperature=0.2)
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> [list(losses) for losses in stack.losses()]
        [['scl', 'probe'], ['scl', 'probe']]
        >>> [prediction.shape for prediction in stack.inference_by_depth(torch.randn(5, 4))]
        [torch.Size([5, 3]), torch.Size([5, 3])]
    """

    needs_example: ClassVar[bool] = False

    projector: Literal["linear", "mlp"] = "linear"
    temperature: float = 0.1
    code_dim: int = 128
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_settings(code_dim=self.code_dim, label_smoothing=self.label_smoothing)
        check_word("projector", self.projector, ("linear", "mlp"))
        check_temperature(self.temperature)

    def layers(
        self,
        network: Iterable[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, ContrastiveLayer]:
        """Return the layers of a network by name; labels are their target."""
        made = {}
        for part in network:
            projector = part.bridge(self.code_dim)
            if self.projector == "mlp":
                projector = nn.Sequential(projector, *perceptron(self.code_dim, 1, self.code_dim))
            made[part.name] = ContrastiveLayer(
                part.f, projector, part.bridge(n_classes), lr, optimizer, self.temperature, self.label_smoothing
            )
        return made


class ContrastiveLayer(Headed):
    """A layer that trains f and a projector on the contrastive loss, and a classifier beside them on its own.

    Args:
        f: The network's own layer.
        projector: From what `f` returns to codes (B, d); they are scaled to unit length.
        classifier: From what `f` returns to logits (B, C). Its loss, "probe", changes nothing but its own weights.
        lr: Learning rate.
        optimizer: Called with one parameter group; Adam by default.
        temperature: Divides the cosines between codes.
        label_smoothing: Share of the classifier's target that goes to all classes alike.
    """

    loss_names = ("scl", "probe")
    loss_titles = MappingProxyType({"scl": "contrastive loss", "probe": "cross-entropy beside it"})
    #: Every sample is compared with all others of its batch.
    row_separable = False

    def __init__(
        self,
        f: nn.Module,
        projector: nn.Module,
        classifier: nn.Module,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
        temperature: float = 0.1,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(f, {"projector": projector, "classifier": classifier}, lr, optimizer)
        self.temperature = temperature
        self.label_smoothing = label_smoothing

    def local_losses(self, x: Any, hidden: Any, labels: Tensor) -> dict[str, Tensor]:
        """Return the contrastive loss, and the cross-entropy of the classifier, which no gradient leaves."""
        codes = full_precision(self.heads["projector"](hidden))
        return {
            "scl": supervised_contrastive(codes, labels, self.temperature),
            "probe": self.probed(hidden, labels, self.label_smoothing),
        }


def supervised_contrastive(codes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of codes (B, d) of any length, with labels int64 (B,), 0-d.

    With unit codes z, the other samples A(i) of the batch, and those of them P(i) that have the class of sample i
    (Khosla et al. 2020, equation 2; the mean over the samples i is what the authors' code takes of them):

        mean_i -1 / |P(i)| sum_{p in P(i)} log( exp(z_i . z_p / t) / sum_{a in A(i)} exp(z_i . z_a / t) )

    A sample that is the only one of its class counts as 0 in the mean. SCPL's own code divides by |P(i)| + 1 instead,
    which weighs rare classes less.
    """
    with torch.autocast(codes.device.type, enabled=False):  # half precision would blur what the temperature sharpens
        codes = to_unit(codes)
        logits = codes @ codes.T / temperature
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = ((labels[:, None] == labels) & ~own).to(logits.dtype)
    # The lowest number and not minus infinity: in a batch of one sample nothing else is in the sum.
    others = torch.logsumexp(logits.masked_fill(own, torch.finfo(logits.dtype).min), 1, keepdim=True)
    return ((others - logits) * positive).sum(1).div(positive.sum(1).clamp_min(1)).mean()
