"""Nested tensors: what one layer hands to the next may be any tuple, list or dict of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .errors import LayerError

#: Types of leaves that hold nothing.
PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device))


def detach(tree: Any) -> Any:
    """Return the same structure with every tensor cut from its graph; other leaves stay as they are.

    Raises LayerError for a container that pytree does not know, and for an object with tensors that have a graph: they
    would keep it, and the next layer's gradient would reach into this one.
    """
    return tree_map(_detached, tree)


def _detached(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach()
    if type(leaf) in PLAIN or isinstance(leaf, type):
        return leaf
    if isinstance(leaf, (Mapping, list, tuple, set, frozenset)) or is_dataclass(leaf) or _holds_graph(leaf):
        kind = type(leaf).__name__
        raise LayerError(
            f"{kind} passes between layers, but its tensors cannot be found; use a tuple, a list or a dict, or "
            "register the class with torch.utils._pytree.register_pytree_node"
        )
    return leaf


#: How deep a tensor is looked for in objects that hold objects, as a cache of keys and values does.
DEPTH = 3


def _holds_graph(leaf: Any, depth: int = DEPTH) -> bool:
    """Tell whether an attribute of an object, or what a function holds, is a tensor with a graph."""
    held = list(getattr(leaf, "__dict__", {}).values())
    slots = [getattr(kind, "__slots__", ()) for kind in type(leaf).__mro__]
    names = [name for one in slots for name in ((one,) if isinstance(one, str) else one)]
    held += [getattr(leaf, name) for name in names if hasattr(leaf, name)]
    leaves = tree_leaves([*held, *held_by(leaf)])
    if any(isinstance(one, Tensor) and one.grad_fn is not None for one in leaves):
        return True
    objects = [one for one in leaves if type(one) not in PLAIN and not isinstance(one, (Tensor, type, ModuleType))]
    return depth > 1 and any(_holds_graph(one, depth - 1) for one in objects)


def held_by(function: Any) -> list[Any]:
    """Return what a function has closed over or has as a default, the object of a method, a partial's arguments."""
    held = [
        getattr(function, name, None) for name in ("__self__", "__defaults__", "__kwdefaults__", "args", "keywords")
    ]
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            held.append(cell.cell_contents)
    return held


def to_device(tree: Any, device: torch.device) -> Any:
    """Return the same structure with every tensor on `device`; a tensor that is there already is not copied."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def tensors(tree: Any) -> list[Tensor]:
    """Return the tensors of the structure, in order."""
    # Almost every structure is made of these three; pytree knows all structures but takes ten times as long.
    if isinstance(tree, Tensor):
        return [tree]
    if type(tree) in (tuple, list):
        return [tensor for part in tree for tensor in tensors(part)]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def versions(leaves: list[Tensor]) -> list[int]:
    """Return the version of every tensor, which grows with each in-place change; inference tensors have none."""
    try:
        return [leaf._version for leaf in leaves]
    except RuntimeError:  # asking `is_inference` first would release the GIL, and cost a pipeline a thread switch
        return [leaf._version for leaf in leaves if not leaf.is_inference()]


def memory(state: object) -> tuple[str, int] | None:
    """Return what identifies the memory behind a tensor; None if it has none, or is no tensor.

    Two Parameter objects over the same memory, such as `nn.Parameter(other.data)`, are one weight under two names.
    """
    if not isinstance(state, Tensor) or state.is_meta:
        return None
    try:
        address = state.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError, ValueError):  # sparse tensors and lazy parameters have no storage
        return None
    return (str(state.device), address) if address else None  # an empty tensor's address is 0


def same_values(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have the same values, NaNs included; yes for kinds that cannot be compared."""
    try:
        if torch.equal(one, other):  # fast, but NaN is not equal to itself
            return True
        torch.testing.assert_close(one.detach(), other, rtol=0.0, atol=0.0, equal_nan=True)
    except AssertionError:
        return False
    except (NotImplementedError, RuntimeError, ValueError):
        return True
    return True
