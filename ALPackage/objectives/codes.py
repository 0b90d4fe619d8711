"""Class codes: the target of a layer is a table with one code per class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Target = tuple[Tensor, Tensor]


class OneHot(nn.Module):
    """Turn labels int64 (B,) into y_0 = (identity float (C, C), labels)."""

    table: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.eye(n_classes), persistent=False)

    def forward(self, labels: Tensor) -> Target:
        """Return (identity (C, C), labels), both on the device of `labels`."""
        return self.table.to(labels.device), labels


class OnCodes(nn.Module):
    """Apply a module to the codes of a target and hand the labels on; plain codes (B, d) pass through it too.

    The second form is what inference needs: there `h` decodes the bridge's output, which has no labels.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, y: Target | Tensor) -> Target | Tensor:
        """Return (module(table), labels) for a target, module(y) for plain codes."""
        if isinstance(y, Tensor):
            return self.module(y)  # type: ignore[no-any-return]
        table, labels = y
        return self.module(table), labels


class UnitNorm(nn.Module):
    """Scale codes (..., d) to unit length, so that a dot product is a cosine."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / |x| along the last dimension."""
        return F.normalize(x, dim=-1)
