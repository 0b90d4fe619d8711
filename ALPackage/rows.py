"""The rows of a batch: how replicas of a layer divide them among themselves, and how they are put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .errors import LayerError
from .nested import tensors


class Share(NamedTuple):
    """The rows from `start` to before `stop` of a batch that has `total`."""

    start: int
    stop: int
    total: int

    @property
    def size(self) -> int:
        """How many rows."""
        return self.stop - self.start

    @property
    def weight(self) -> float:
        """Which part of the batch: what a mean over these rows counts in the mean over all."""
        return self.size / self.total


def share_of(total: int, member: int, members: int) -> Share:
    """Return the rows of one of `members` equal members; where they do not divide evenly, some have one more.

    Members of groups of different sizes have rows in common only where their parts of the interval [0, 1) overlap,
    whatever the number of rows (see `overlap`).
    """
    return Share(member * total // members, (member + 1) * total // members, total)


def overlap(member: int, members: int, other: int, others: int) -> bool:
    """Tell whether two members of groups of different sizes may have rows in common."""
    return member * others < (other + 1) * members and other * members < (member + 1) * others


def count_rows(tree: Any) -> int:
    """Return the size of dimension 0 of the structure's tensors. Raises LayerError where they differ."""
    sizes = {len(one) for one in tensors(tree) if one.dim()}
    if len(sizes) != 1:
        raise LayerError(
            f"the rows of a batch cannot be told: its tensors have {_listed(sizes)} in dimension 0; override split and "
            "join of the layer"
        )
    return sizes.pop()


def take_rows(tree: Any, start: int, stop: int, total: int) -> Any:
    """Return the structure with the rows `start` to before `stop` of every tensor; 0-d tensors stay whole.

    Raises LayerError for a tensor that has not `total` rows.
    """
    return _of_rows(tree, total, lambda leaf: leaf[start:stop])


def select_rows(tree: Any, index: Tensor, total: int) -> Any:
    """Return the structure with the rows at `index` int64 (R,) of every tensor; 0-d tensors stay whole.

    Raises LayerError for a tensor that has not `total` rows.
    """
    return _of_rows(tree, total, lambda leaf: leaf.index_select(0, index.to(leaf.device)))


def _of_rows(tree: Any, total: int, take: Callable[[Tensor], Tensor]) -> Any:
    """Apply `take` to every tensor that has rows. Raises LayerError for one that has not `total` of them."""

    def checked(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.dim():
            return leaf
        if len(leaf) != total:
            raise LayerError(
                f"a tensor of shape {tuple(leaf.shape)} has not the {total} rows of the batch in dimension 0; override "
                "split and join of the layer that reads it"
            )
        return take(leaf)

    return tree_map(checked, tree)


def join_rows(parts: Sequence[Any]) -> Any:
    """Return one structure with the rows of all of `parts`, in their order. Raises LayerError where they do not fit."""
    if len(parts) == 1:
        return parts[0]
    flat = [tree_flatten(part) for part in parts]
    spec = flat[0][1]
    if any(other != spec for _, other in flat):
        raise LayerError("replicas handed on structures that differ; override join of the layer that reads them")
    try:
        leaves = [
            torch.cat(leaves) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]
            for leaves in zip(*(leaves for leaves, _ in flat), strict=True)
        ]
    except RuntimeError as error:
        raise LayerError(f"replicas handed on rows that do not fit together: {error}") from None
    return tree_unflatten(leaves, spec)


def _listed(sizes: set[int]) -> str:
    return " and ".join(map(str, sorted(sizes))) or "no sizes"
