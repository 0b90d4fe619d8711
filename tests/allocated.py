"""How much memory tensors get within a block, counted and not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Count the bytes of all new tensors that this thread makes within the block, but for those on "meta"."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {one.untyped_storage().data_ptr() for one in _with_values((args, kwargs))}
        made = function(*args, **(kwargs or {}))
        for one in _with_values(made):
            if one.untyped_storage().data_ptr() not in before:
                self.bytes += one.untyped_storage().nbytes()
        return made


def _with_values(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor) and not one.is_meta]
