"""Class codes: the target of a layer is a table with one code per class."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Target = tuple[Tensor, Tensor]


class OneHot(nn.Module):
    """Turn labels int64 (B,) into y_0 = (identity float (C, C), labels).

    `set_device` moves layers, not the target of a stack, so the labels may be on a device where the table is not. A
    copy is kept per device: copying the table again for every batch would make the host wait for the GPU.
    """

    table: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.eye(n_classes), persistent=False)
        self._copies: dict[torch.device, Tensor] = {}

    def forward(self, labels: Tensor) -> Target:
        """Return (identity (C, C), labels), both on the device of `labels`; only its first batch copies the table."""
        device = labels.device
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
        return F.normalize(x, dim=-1)
