"""Which rank has which layers.

A stage is the layers of one rank, which are neighbors, and the stages form a chain. A stage may have replicas: ranks
with the same layers, which divide the rows of every batch among themselves. Rank 0 has the first layer: it reads the
batches and gets the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from ..errors import PlacementError
from ..rows import overlap


@dataclass(frozen=True)
class Chain:
    """The stages in the order of their layers.

    Attributes:
        ranks: The rank of every layer, first to last; of a stage with replicas the first one's.
        groups: The ranks of every stage, first to last.
        rank: This process's own.
    """

    ranks: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    rank: int

    @property
    def order(self) -> list[int]:
        """All ranks, stage by stage."""
        return [rank for group in self.groups for rank in group]

    @cached_property
    def stage(self) -> int:
        """The number of this rank's stage."""
        return self.stage_of(self.rank)

    @property
    def group(self) -> tuple[int, ...]:
        """The ranks of this rank's stage."""
        return self.groups[self.stage]

    @property
    def replica(self) -> int:
        """This rank's number among those of its stage."""
        return self.group.index(self.rank)

    @property
    def own(self) -> list[int]:
        """The layers of this rank, by index."""
        return self.layers_of(self.rank)

    @property
    def leads(self) -> bool:
        """Whether this rank reads the batches and gets the results."""
        return self.rank == self.order[0]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Which rank sends batches to which: in a stage that reads them rank 0 to its replicas, else stage to stage.

        Every rank of a stage sends to those of the next one with which it has rows in common.
        """
        first, *others = self.groups[0]
        edges = [(first, other) for other in others]
        for before, after in pairwise(self.groups):
            edges += [
                (one, other)
                for member, one in enumerate(before)
                for place, other in enumerate(after)
                if overlap(member, len(before), place, len(after))
            ]
        return edges

    def stage_of(self, rank: int) -> int:
        """Return the number of a rank's stage."""
        return next(number for number, group in enumerate(self.groups) if rank in group)

    def layers_of(self, rank: int) -> list[int]:
        """Return the layers of a rank, by index."""
        first = self.groups[self.stage_of(rank)][0]
        return [index for index, other in enumerate(self.ranks) if other == first]


def make_chain(
    layers: int, ranks: Sequence[int] | None, world: int, rank: int, replicas: Sequence[int] | None = None
) -> Chain:
    """Return the chain of `world` ranks.

    Args:
        layers: How many layers.
        ranks: The rank of every layer, or the first one of its stage's; by default neighbors in nearly equal numbers.
        world: How many ranks.
        rank: This process's own.
        replicas: How many ranks every stage has; they follow each other. By default one.

    Raises:
        PlacementError: For a list that does not fit the layers or the ranks.
    """
    counts = _counts(layers, world, replicas)
    starts = [0, *accumulate(counts)][:-1]
    if ranks is None:
        ranks = [starts[index * len(counts) // layers] for index in range(layers)]
    if len(ranks) != layers:
        raise PlacementError(f"ranks: the list has {len(ranks)} entries but the model has {layers} layers")
    order = list(dict.fromkeys(ranks))
    runs = 1 + sum(one != other for one, other in pairwise(ranks))
    listed = ", ".join(map(str, ranks))
    if replicas is not None and order != starts:
        raise PlacementError(
            f"ranks: got {listed}; with the replicas {', '.join(map(str, counts))} the stages begin with the ranks "
            f"{', '.join(map(str, starts))}, in this order"
        )
    if sorted(order) != starts:
        raise PlacementError(
            f"ranks: got {listed}; expected each of the {world} ranks (0 to {world - 1}) to have a layer"
        )
    if runs != len(starts):
        raise PlacementError(f"ranks: got {listed}; the layers of a rank have to be neighbors")
    if ranks[0] != 0:
        raise PlacementError(f"ranks: got {listed}; rank 0 reads the batches, so it needs the first layer")
    groups = [tuple(range(first, first + count)) for first, count in zip(starts, counts, strict=True)]
    return Chain(tuple(ranks), tuple(groups if replicas is not None else [(first,) for first in order]), rank)


def _counts(layers: int, world: int, replicas: Sequence[int] | None) -> list[int]:
    """Return how many ranks every stage has."""
    if replicas is None:
        if world > layers:
            raise PlacementError(
                f"ranks: there are {world} of them for {layers} layers, and a layer cannot be divided; start at most "
                f'{layers} processes, or give stages replicas, which divide the rows: "stage_replicas": '
                f"{spread_replicas(layers, world)}"
            )
        return [1] * world
    listed = ", ".join(map(str, replicas))
    if any(count < 1 for count in replicas) or sum(replicas) != world:
        raise PlacementError(
            f"stage_replicas: got {listed}, which is {sum(replicas)} ranks; expected numbers of at least 1 that make "
            f"{world}, the processes that were started"
        )
    if len(replicas) > layers:
        raise PlacementError(f"stage_replicas: got {listed}: {len(replicas)} stages for {layers} layers")
    return list(replicas)


def spread_replicas(stages: int, world: int) -> list[int]:
    """Return numbers of ranks for `stages` stages that make `world`, as equal as they go, those before get more."""
    return [(world + stages - 1 - stage) // stages for stage in range(stages)]
