"""Which rows of a batch each rank has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Rows:
    """The rows [start, stop) of a batch. `weight`: what their mean counts in the mean over ranks."""

    start: int
    stop: int
    weight: float

    def of(self, tree: Any) -> Any:
        """Return these rows of every tensor, where dimension 0 is the batch."""
        return tree_map(lambda tensor: tensor[self.start : self.stop], tree)


def share(total: int, world: int, rank: int, least: int = 1) -> Rows:
    """Return the rows of a batch of `total` that a rank has: as many as the others, or one more.

    No rank has fewer than `least` of them. Those for which there are none take the first rows, which count nothing: so
    they go through the same operations as the others, which wait for them.

    Example:
        >>> [share(7, 3, rank) for rank in range(3)][0]
        Rows(start=0, stop=3, weight=1.2857142857142858)
        >>> [(rows.start, rows.stop) for rows in (share(3, 3, rank, least=2) for rank in range(3))]
        [(0, 3), (0, 2), (0, 2)]
    """
    sharing = min(world, max(1, total // least))
    if rank >= sharing:
        return Rows(0, min(least, total), 0.0)
    each, more = divmod(total, sharing)
    start = rank * each + min(rank, more)
    stop = start + each + (rank < more)
    return Rows(start, stop, (stop - start) * world / total)
