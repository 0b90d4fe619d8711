"""The AL layers of a classifier: class codes, a bridge to them behind every layer, and a decoder of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import AE, ENC
from ..given import check_word
from ..layer import LearningRate
from .association import ASSOCIATIONS, Association, Reconstruction
from .classification import ClassifierAL
from .codes import OnCodes, OneHot, UnitNorm
from .headed import check_settings, check_temperature
from .part import MakeOptimizer, Part

#: What bounds the codes, by the kind of codes.
BOUNDS: dict[str, list[type[nn.Module]]] = {"linear": [], "tanh": [nn.Tanh], "sigmoid": [nn.Sigmoid]}


@dataclass(frozen=True, kw_only=True)
class Associated:
    """The losses and codes of Associated Learning for classes (Kao & Chen, Neural Computation 33(1), 2021).

    Attributes:
        association: The associated loss: "contrastive": cross-entropy over the codes of all classes; "mse", "cosine":
            distance to the code of the sample's own class.
        temperature: Divides the similarities of the contrastive association.
        codes: What follows the linear maps of g, h and the bridge: "linear": nothing, and h is the transpose of g;
            "tanh", "sigmoid": bounded codes, and decoders of their own.
        auto_encoder: The loss of h(g(y)) against y: "auto": cross-entropy over the classes in the first layer, then
            what suits the association; "mse": squared distance in every layer.
        code_dim: Width of the codes.
        label_smoothing: Share of the target that goes to all classes alike.

    Raises:
        ValueError: For a value that a setting cannot have.
    """

    needs_example: ClassVar[bool] = False

    association: Literal["mse", "cosine", "contrastive"] = "contrastive"
    temperature: float = 0.2
    codes: Literal["linear", "tanh", "sigmoid"] = "linear"
    auto_encoder: Literal["auto", "mse"] = "auto"
    code_dim: int = 128
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a value that a setting cannot have."""
        check_word("association", self.association, ASSOCIATIONS)
        check_word("codes", self.codes, BOUNDS)
        check_word("auto_encoder", self.auto_encoder, ("auto", "mse"))
        check_temperature(self.temperature)
        check_settings(code_dim=self.code_dim, label_smoothing=self.label_smoothing)

    def layers(
        self,
        network: Iterable[Part],
        n_classes: int,
        lr: LearningRate = 1e-3,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> dict[str, ClassifierAL]:
        """Return the AL layers of a network by name.

        With the contrastive association, codes have unit length on both sides, b's and g's.
        """
        contrastive = self.association == "contrastive"
        suited = self.auto_encoder == "auto"
        # Initial weights are drawn as modules are made: bridge, then g and h, layer by layer. In another order the same
        # seed would give another network.
        made: dict[str, ClassifierAL] = {}
        below = n_classes
        for part in network:
            b = nn.Sequential(part.bridge(self.code_dim), *self._ending())
            encoder, decoder = self._code_pair(below)
            g = OnCodes(nn.Sequential(encoder, *self._ending()))
            if made:
                h = OnCodes(nn.Sequential(decoder, *self._ending()))
                kind = "contrastive" if contrastive and suited else "mse"
            elif suited:
                # The first decoder's rows are logits over the classes: nothing may bound them.
                h, kind = OnCodes(decoder), "classes"
            else:
                h, kind = OnCodes(nn.Sequential(decoder, *self._ending())), "mse"
            reconstruction = Reconstruction(kind, self.temperature if contrastive else 1.0, unit=contrastive)
            associated = Association(self.association, self.temperature, self.label_smoothing, unit=contrastive)
            made[part.name] = ClassifierAL(ENC(part.f, b, associated), AE(g, h, reconstruction), lr, optimizer)
            below = self.code_dim
        return made

    def target(self, n_classes: int) -> OneHot:
        """Return what makes the table of one-hot codes, with the labels, of labels."""
        return OneHot(n_classes)

    def _ending(self) -> list[nn.Module]:
        """Return what follows a linear map to codes."""
        bounded = [make() for make in BOUNDS[self.codes]]
        return [*bounded, UnitNorm()] if self.association == "contrastive" else bounded

    def _code_pair(self, below: int) -> tuple[nn.Module, nn.Module]:
        """Return the linear parts of g and h: an orthogonal map and its transpose, so that h decodes what g encodes.

        The auto-encoder loss shows h the exact codes, but nothing around them, which is where the bridge's outputs lie.
        A transpose ranks the classes by the dot product of a code with theirs, for any code: that is by the cosine as
        long as the norms of the classes' codes are alike, and they start at 1. A decoder that learns freely need not
        rank them so (benchmarks/NOTES.md). With linear codes, h stays the transpose of g; with bounded codes, which a
        transpose cannot decode, h only starts as it.
        """
        if self.codes == "linear":
            tied = nn.Linear(below, self.code_dim, bias=False)
            nn.init.orthogonal_(tied.weight)
            if below > self.code_dim:  # then the rows are orthonormal, not the columns, and the classes differ in norm
                with torch.no_grad():
                    tied.weight.div_(tied.weight.norm(dim=0))
            return tied, Transposed(tied)
        encoder, decoder = nn.Linear(below, self.code_dim), nn.Linear(self.code_dim, below)
        nn.init.orthogonal_(encoder.weight)
        with torch.no_grad():
            decoder.weight.copy_(encoder.weight.T)
        nn.init.zeros_(encoder.bias)
        nn.init.zeros_(decoder.bias)
        return encoder, decoder


class Transposed(nn.Module):
    """Decode with the transpose of an encoder, a linear map without bias: codes (..., d_i) -> (..., d_{i-1})."""

    def __init__(self, encoder: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, code: Tensor) -> Tensor:
        """Return code @ W for the encoder's W (d_i, d_{i-1}), unbounded."""
        return F.linear(code, self.encoder.weight.T)
