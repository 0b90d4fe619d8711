"""Which rank has which layers.

A rank has neighbors among the layers, and the ranks form a chain in the order of the layers. Rank 0 has the first
layer: it reads the batches and gets the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import PlacementError


@dataclass(frozen=True)
class Chain:
    """The ranks in the order of their layers.

    Attributes:
        ranks: The rank of every layer, first to last.
        rank: This process's own.
    """

    ranks: tuple[int, ...]
    rank: int

    @property
    def order(self) -> list[int]:
        """The ranks, that of the first layer first."""
        return list(dict.fromkeys(self.ranks))

    @property
    def own(self) -> list[int]:
        """The layers of this rank, by index."""
        return self.layers_of(self.rank)

    @property
    def leads(self) -> bool:
        """Whether this rank reads the batches and gets the results."""
        return self.rank == self.order[0]

    @property
    def before(self) -> int | None:
        """The rank that this one gets its batches from."""
        place = self.order.index(self.rank)
        return self.order[place - 1] if place else None

    @property
    def after(self) -> int | None:
        """The rank that gets this one's batches."""
        place = self.order.index(self.rank)
        return self.order[place + 1] if place + 1 < len(self.order) else None

    def layers_of(self, rank: int) -> list[int]:
        """Return the layers of a rank, by index."""
        return [index for index, other in enumerate(self.ranks) if other == rank]


def make_chain(layers: int, ranks: Sequence[int] | None, world: int, rank: int) -> Chain:
    """Return the chain of `world` ranks, from the rank of every layer; by default neighbors in nearly equal numbers.

    Raises PlacementError for a list that does not fit the layers or the ranks.
    """
    if ranks is None:
        if world > layers:
            raise PlacementError(
                f"ranks: there are {world} of them for {layers} layers, and a layer cannot be divided; start at most "
                f"{layers} processes"
            )
        ranks = [index * world // layers for index in range(layers)]
    if len(ranks) != layers:
        raise PlacementError(f"ranks: the list has {len(ranks)} entries but the model has {layers} layers")
    chain = Chain(tuple(ranks), rank)
    runs = 1 + sum(one != other for one, other in pairwise(ranks))
    listed = ", ".join(map(str, ranks))
    if sorted(chain.order) != list(range(world)):
        raise PlacementError(
            f"ranks: got {listed}; expected each of the {world} ranks (0 to {world - 1}) to have a layer"
        )
    if runs != world:
        raise PlacementError(f"ranks: got {listed}; the layers of a rank have to be neighbors")
    if ranks[0] != 0:
        raise PlacementError(f"ranks: got {listed}; rank 0 reads the batches, so it needs the first layer")
    return chain
