"""Class codes: the target of a layer is a table with one code per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .labels import checked_labels

Target = tuple[Tensor, Tensor]
#: Such a target in words, for `LocalLayer.takes`.
TABLE = "a table of class codes with the labels"


class OneHot(nn.Module):
    """Turn labels int64 (B,) into y_0 = (identity float (C, C), labels); others are refused (`checked_labels`).

    `set_device` moves layers, not the target of a stack, so the labels may be on a device where the table is not. A
    copy is kept per device: copying the table again for every batch would make the host wait for the GPU.
    """

    table: Tensor
    #: What it makes of the labels, for `LocalLayer.takes`.
    hands_on = TABLE

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.eye(n_classes), persistent=False)
        self._copies: dict[torch.device, Tensor] = {}

    def forward(self, labels: Tensor) -> Target:
        """Return (identity (C, C), labels), both on the device of `labels`; only its first batch copies the table."""
        device = checked_labels(labels, len(self.table)).device
        if device == self.table.device:
            return self.table, labels
        if device not in self._copies:
            self._copies[device] = self.table.to(device)
        return self._copies[device], labels

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OneHot:
        """Drop the copies when the module is moved or cast: they may have another dtype than the table then."""
        self._copies.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, object]:
        """Leave the copies out of pickles and deep copies."""
        return {**self.__dict__, "_copies": {}}


class OnCodes(nn.Module):
    """Apply a module to the codes of a target and hand the labels on; it accepts plain codes (B, d) as well.

    Inference needs the second form: there `h` decodes the bridge's output, which comes without labels.
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
        return to_unit(x)


def to_unit(x: Tensor) -> Tensor:
    """Return x (..., d) scaled to unit length, as `F.normalize` does, with half of its operations."""
    scaled: Tensor = _Unit.apply(x)[0]
    return scaled


class _Unit(torch.autograd.Function):
    """Return x / |x| and |x|, which is an output only so that the backward pass can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        scaled = x / norm
        ctx.save_for_backward(scaled, norm)
        ctx.set_materialize_grads(False)
        return scaled, norm

    @staticmethod
    def backward(ctx: Any, d_scaled: Tensor | None, d_norm: Tensor | None) -> Tensor | None:
        scaled, norm = ctx.saved_tensors
        through: Tensor | None = None
        if d_scaled is not None:
            along = (d_scaled * scaled).sum(-1, keepdim=True)
            through = torch.addcmul(d_scaled, scaled, along, value=-1.0) / norm
        if d_norm is not None:
            through = d_norm * scaled if through is None else through + d_norm * scaled
        return through
