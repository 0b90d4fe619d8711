"""The best cut of a row of layers over ranks: how much each has to do, and what the connections between them carry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from ..errors import PlacementError


def rank_name(rank: int, device: torch.device, replicas: int = 1) -> str:
    """Return the name of a device in a process, as device lists have it: "rank1", "rank1:cuda:0".

    Of a stage with replicas it is "rank1-3", or "rank1-3:cuda", each with a device of its own.
    """
    which = f"rank{rank}" if replicas == 1 else f"rank{rank}-{rank + replicas - 1}"
    if device.type == "cpu" and (replicas > 1 or device.index is None):
        return which
    return f"{which}:{device if replicas == 1 else device.type}"


def ranks_named(name: str) -> range:
    """Return the ranks in a name that `rank_name` has given; none in that of a device of a single process."""
    found = re.match(r"rank(\d+)(?:-(\d+))?", name)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


@dataclass(frozen=True)
class Stages:
    """Layers to be spread over ranks.

    Attributes:
        costs: Seconds per batch of every layer.
        sent: Bytes per batch that every layer hands on.
        averaged: Bytes per batch that replicas of a layer average: its gradients.
        workers: How many workers a rank has.
        speed: Bytes per second from one rank to another.
    """

    costs: Sequence[float]
    sent: Sequence[float]
    averaged: Sequence[int] = ()
    workers: int = 1
    speed: float = float("inf")

    def seconds(self, start: int, stop: int, replicas: int = 1) -> float:
        """Return the seconds per batch of a stage with the layers from `start` to before `stop`.

        A rank's workers share its layers, so a batch takes it what its layers cost over its workers, or its largest
        layer if that is more. Replicas divide the rows. A layer's replicas exchange 2 (R - 1) / R of its gradients, as
        a ring does; while they do, the stage's other layers go on.
        """
        costs = [cost / replicas for cost in self.costs[start:stop]]
        around = 2 * (replicas - 1) / replicas / self.speed
        averages = [size * around for size in (self.averaged or [0] * len(self.costs))[start:stop]]
        longest = max(cost + average for cost, average in zip(costs, averages, strict=True))
        return max(sum(costs) / self.workers, longest, sum(averages))

    def slowest(self, where: Sequence[int], replicas: Sequence[int] | None = None) -> float:
        """Return the seconds per batch of the slowest stage or connection of a cut, as `over_ranks` returns one."""
        begins = [layer for layer, rank in enumerate(where) if not layer or rank != where[layer - 1]]
        ends = [*begins[1:], len(where)]
        counts = replicas or [1] * len(begins)
        found = [self.seconds(*stage) for stage in zip(begins, ends, counts, strict=True)]
        return max([*found, *map(self.arriving, begins)])

    def arriving(self, start: int) -> float:
        """Return the seconds per batch that the connection to the stage that begins with layer `start` needs."""
        return self.sent[start - 1] / self.speed if start else 0.0


def over_ranks(
    costs: Sequence[float],
    sent: Sequence[float],
    world: int,
    *,
    workers: int = 1,
    speed: float = float("inf"),
    averaged: Sequence[int] = (),
    replicas: Sequence[int] | None = None,
) -> list[int]:
    """Return the rank of every layer, so that the slowest stage or connection is as fast as possible.

    Sending goes on beside the work: a batch takes a connection its bytes over `speed`. Of equally good cuts it takes
    the one that sends the least. Every stage gets neighboring layers, in the order of the ranks, and at least one.
    O(stages * layers^2).

    Args:
        costs, sent, averaged, workers, speed: As in `Stages`.
        world: How many ranks.
        replicas: How many of them each stage has; by default one. The rank of a layer is its stage's first one.

    Raises:
        PlacementError: If there are more stages than layers.
    """
    layers, counts = len(costs), list(replicas or [1] * world)
    if len(counts) > layers:
        raise PlacementError(
            f"ranks: there are {len(counts)} of them for {layers} layers, and a layer cannot be divided; start at most "
            f"{layers} processes"
        )
    all_layers = Stages(costs, sent, averaged, workers, speed)

    def search(limit: float | None) -> tuple[float, tuple[int, ...]]:
        """Return the fastest cut; with a `limit` the one that sends the least, of those that take no longer."""
        # By the number of layers in the stages so far: what counts, and where each stage begins.
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for stage, count in enumerate(counts):
            following: dict[int, tuple[float, tuple[int, ...]]] = {}
            for start, (before, begins) in best.items():
                for stop in range(start + 1, layers - (len(counts) - stage - 1) + 1):
                    takes = max(all_layers.arriving(start), all_layers.seconds(start, stop, count))
                    if limit is not None and takes > limit:
                        continue
                    found = max(before, takes) if limit is None else before + (sent[start - 1] if start else 0)
                    if stop not in following or found < following[stop][0]:
                        following[stop] = found, (*begins, start)
            best = following
        return best[layers]

    begins = search(search(None)[0])[1]
    firsts = [0, *accumulate(counts)]
    return [firsts[sum(start <= layer for start in begins) - 1] for layer in range(layers)]


def best_replicas(stages: Stages, world: int) -> tuple[float, list[int]]:
    """Return the fewest seconds per batch that `world` ranks can reach, and how many ranks each stage has then.

    Of equally fast divisions it takes one with few replicas. O(world^2 * layers^2).
    """
    layers = len(stages.costs)
    # By the layers and the ranks so far: seconds, replicas beyond the first ones, and the ranks of each stage.
    best: dict[tuple[int, int], tuple[float, int, tuple[int, ...]]] = {(0, 0): (0.0, 0, ())}
    for start in range(layers):
        for used in range(world):
            if (start, used) not in best:
                continue
            before, more, counts = best[start, used]
            for stop in range(start + 1, layers + 1):
                for count in range(1, world - used + 1):
                    takes = max(before, stages.arriving(start), stages.seconds(start, stop, count))
                    found = takes, more + count - 1, (*counts, count)
                    place = stop, used + count
                    if place not in best or found < best[place]:
                        best[place] = found
    seconds, _, counts = best[layers, world]
    return seconds, list(counts)
