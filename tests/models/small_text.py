"""Text models at a tiny size, in both forms, and a text for them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ALPackage import ALStack
from models import BPModel, build_text
from models.text_parts import real_positions

LOCAL: dict[str, Any] = {"association": "contrastive", "temperature": 0.2, "lr": 1e-3, "weight_decay": 0.0}
SIZES: dict[str, Any] = {"n_classes": 5, "x_hid": 6, "y_hid": 8, "n_heads": 2}
LENGTHS = torch.tensor([1, 4, 7, 2])


def vectors() -> Tensor:
    """Return word vectors (30, 8), of which the padding's are not zero: that may not matter either."""
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(3))


def al(model: str, **options: Any) -> ALStack:
    """Return the AL form at a tiny size, of which `options` changes some."""
    stack = build_text(model, "al", **{"vectors": vectors(), **SIZES, **LOCAL, **options})
    assert isinstance(stack, ALStack)
    return stack


def bp(model: str, **options: Any) -> BPModel:
    """Return the BP form at a tiny size, of which `options` changes some."""
    stack = build_text(model, "bp", **{"vectors": vectors(), **SIZES, **LOCAL, **options})
    assert isinstance(stack, BPModel)
    return stack


def text() -> tuple[Tensor, Tensor]:
    """Return tokens (4, 7), 0 after each sample's length, and the lengths."""
    tokens = torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(4))
    return tokens.where(real_positions(LENGTHS, 7), 0), LENGTHS


def repadded(x: tuple[Tensor, Tensor], more: int, fill: int) -> tuple[Tensor, Tensor]:
    """Return the same text with `more` columns of padding, all padding being the token `fill`."""
    tokens, lengths = x
    wide = F.pad(tokens, (0, more))
    return wide.where(real_positions(lengths, wide.shape[1]), fill), lengths
