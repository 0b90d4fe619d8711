"""Nested tensors: what one layer hands to the next may be any tuple, list or dict of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["detach", "to_device"]


def detach(tree: Any) -> Any:
    """Return the same structure with every tensor cut from its graph; other leaves are left as they are."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def to_device(tree: Any, device: torch.device) -> Any:
    """Return the same structure with every tensor on `device`; a tensor that is there already is not copied."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)
