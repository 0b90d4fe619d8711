"""AL's two losses for classification, where the target of a layer is a table with one code per class.

The target that layers hand on is (table, labels): `table` float (C, d_i), the code of every class at this depth, and
`labels` int64 (B,). Encoding C class codes instead of B one-hot rows computes the same g with less work, and it
lets an association contrast a sample with the codes of the other classes.

Legend: B batch, C classes, d width of a code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .codes import Target, to_unit

ASSOCIATIONS = ("mse", "cosine", "contrastive")


class Association(nn.Module):
    """The associated loss of bridged outputs (B, d) against a target (table (C, d), labels (B,)).

    "mse": squared distance to the code of the sample's own class (Kao & Chen 2021). "cosine": one minus
    the cosine to it. "contrastive": cross-entropy over the cosines to the codes of all classes, divided by
    `temperature`; it also pushes a sample away from the other classes, without which vision models stay at chance.
    `smoothing`, in [0, 1): the share of the target that is spread evenly over all classes (Szegedy et al. 2016,
    section 7); with the first two kinds the code of the sample's class moves by that share towards the mean code.
    `unit`: whether all codes have unit length already, so that the contrastive kind need not scale them again.
    """

    def __init__(
        self, kind: str = "contrastive", temperature: float = 0.2, smoothing: float = 0.0, *, unit: bool = False
    ) -> None:
        super().__init__()
        if kind not in ASSOCIATIONS:
            raise ValueError(f"association: got {kind!r}; expected one of {', '.join(ASSOCIATIONS)}")
        if temperature <= 0:
            raise ValueError(f"temperature: got {temperature}; expected a number > 0")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing: got {smoothing}; expected a number from 0 to below 1")
        self.kind = kind
        self.temperature = temperature
        self.smoothing = smoothing
        self.unit = unit

    def forward(self, bridged: Tensor, target: Target) -> Tensor:
        """Return the mean loss over the batch, 0-d."""
        table, labels = target
        if self.kind == "contrastive":
            logits = full_precision(similarity(bridged, table, unit=self.unit)) / self.temperature
            return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        codes = full_precision(table[labels])
        if self.smoothing:
            codes = torch.lerp(codes, full_precision(table).mean(0), self.smoothing)
        if self.kind == "mse":
            return F.mse_loss(full_precision(bridged), codes)
        return (1.0 - F.cosine_similarity(full_precision(bridged), codes, dim=-1)).mean()


class Reconstruction(nn.Module):
    """The auto-encoder loss of a decoded target against the target that was encoded.

    "classes": cross-entropy of the decoded rows as logits over the classes (for the first layer, whose target is
    one-hot). "contrastive": cross-entropy over the cosines of each decoded code to all codes of the layer below.
    Both divide the logits by `temperature`. "mse": squared distance between the codes. `unit`: whether all codes have
    unit length already.
    """

    def __init__(self, kind: str, temperature: float = 0.2, *, unit: bool = False) -> None:
        super().__init__()
        if kind not in ("classes", "mse", "contrastive"):
            raise ValueError(f"reconstruction: got {kind!r}; expected classes, mse or contrastive")
        self.kind = kind
        self.temperature = temperature
        self.unit = unit

    def forward(self, decoded: Target, target: Target) -> Tensor:
        """Return the mean loss over the classes, 0-d."""
        rows, table = decoded[0], target[0]
        if self.kind == "mse":
            return F.mse_loss(full_precision(rows), full_precision(table))
        own = torch.arange(len(table), device=table.device)
        logits = (rows if self.kind == "classes" else similarity(rows, table, unit=self.unit)) / self.temperature
        return F.cross_entropy(full_precision(logits), own)

    def probabilities(self, decoded: Tensor) -> Tensor:
        """Return decoded rows (B, C) of the first layer as probabilities, float (B, C), read as the loss reads them.

        "classes": the softmax of the logits, divided by `temperature`. "mse": the target is one-hot, so a row holds the
        share of every class already; what is negative counts as 0, and rows are scaled to sum to 1.
        """
        rows = full_precision(decoded)
        if self.kind != "mse":
            return torch.softmax(rows / self.temperature, dim=1)
        shares = rows.clamp_min(0.0)
        whole = shares.sum(1, keepdim=True)
        return torch.where(whole > 0, shares / whole, torch.full_like(shares, 1.0 / shares.shape[1]))


def similarity(codes: Tensor, table: Tensor, *, unit: bool = False) -> Tensor:
    """Return the cosine of every code (B, d) to every row of the table (C, d), as (B, C).

    `unit`: whether all of them have unit length already.
    """
    return codes @ table.T if unit else to_unit(codes) @ to_unit(table).T


def full_precision(x: Tensor) -> Tensor:
    """Return x in float32 if autocast made it half precision: losses are computed in full precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
