"""The best cut of a row of layers over ranks: how much each has to do, and what the connections between them carry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from ..errors import PlacementError


def rank_name(rank: int, device: torch.device) -> str:
    """Return the name of a device in a process, as device lists have it: "rank1", "rank1:cuda:0"."""
    return f"rank{rank}" if str(device) == "cpu" else f"rank{rank}:{device}"


def over_ranks(
    costs: Sequence[float],
    sent: Sequence[int],
    world: int,
    *,
    workers: Sequence[int] | None = None,
    speed: float = float("inf"),
) -> list[int]:
    """Return the rank of every layer, so that the slowest rank or connection is as fast as possible.

    A rank's workers share its layers, so a batch takes it what its layers cost over its workers, or its largest layer
    if that is more. Sending goes on beside the work: a batch takes a connection its bytes over `speed`. Of equally good
    cuts it takes the one that sends the least. Every rank gets neighboring layers, in the order of the ranks, and at
    least one. O(world * layers^2).

    Args:
        costs: Seconds per batch of every layer.
        sent: Bytes per batch that every layer hands on.
        world: How many ranks.
        workers: How many workers each rank has; by default one.
        speed: Bytes per second from one rank to the next.

    Raises:
        PlacementError: If there are more ranks than layers.
    """
    layers = len(costs)
    if world > layers:
        raise PlacementError(
            f"ranks: there are {world} of them for {layers} layers, and a layer cannot be divided; start at most "
            f"{layers} processes"
        )
    workers = workers or [1] * world
    cost_to = [0.0, *accumulate(costs)]

    def stage(rank: int, start: int, stop: int) -> float:
        return max((cost_to[stop] - cost_to[start]) / workers[rank], *costs[start:stop])

    def search(limit: float | None) -> tuple[float, tuple[int, ...]]:
        """Return the fastest cut; with a `limit` the one that sends the least, of those that take no longer."""
        # By the number of layers in the ranks so far: what counts, and where each rank begins.
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for rank in range(world):
            following: dict[int, tuple[float, tuple[int, ...]]] = {}
            for start, (before, begins) in best.items():
                arriving = sent[start - 1] if start else 0
                for stop in range(start + 1, layers - (world - rank - 1) + 1):
                    takes = max(arriving / speed, stage(rank, start, stop))
                    if limit is not None and takes > limit:
                        continue
                    found = max(before, takes) if limit is None else before + arriving
                    if stop not in following or found < following[stop][0]:
                        following[stop] = found, (*begins, start)
            best = following
        return best[layers]

    begins = search(search(None)[0])[1]
    return [sum(start <= layer for start in begins) - 1 for layer in range(layers)]
