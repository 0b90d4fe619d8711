"""How long a batch takes AL on many devices: a simulation from the layers' loads and the speed of the links.

What is assumed, beside that times grow with the rows:
- Every device has a link of its own, which sends and receives at full speed at the same time, beside the work.
- Filling and draining happen once per run, so they do not count.
- Replicas of a stage divide the rows evenly. Averaging their gradients (a ring) is not hidden behind any work, since
  the next batch needs the new weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..errors import PlacementError
from .workload import Load, all_reduce

#: How near the search comes to the best time, relatively.
PRECISION = 1e-6


@dataclass(frozen=True)
class Stages:
    """Neighboring layers per stage, and how many devices share the rows of each; `seconds`: of a batch."""

    sizes: tuple[int, ...]
    replicas: tuple[int, ...]
    seconds: float


def al_seconds(loads: Sequence[Load], sizes: Sequence[int], replicas: Sequence[int], speed: float) -> float:
    """Return the seconds per batch of AL: those of the slowest stage or link. `speed`: bytes per second of a link."""
    ends = list(accumulate(sizes))
    return max(
        _stage(loads, end - size, end).seconds(count, speed)
        for end, size, count in zip(ends, sizes, replicas, strict=True)
    )


def best_al(loads: Sequence[Load], devices: int, speed: float, rows: int) -> Stages:
    """Return the cut and the replicas with which `devices` devices are fastest. O(layers^2) per step of a bisection.

    Raises PlacementError without devices.
    """
    if devices < 1:
        raise PlacementError(f"devices: got {devices}; expected at least 1")
    stages = {
        (start, stop): _stage(loads, start, stop)
        for start in range(len(loads))
        for stop in range(start + 1, len(loads) + 1)
    }
    slow = stages[0, len(loads)].seconds(1, speed)
    fast = 0.0
    best = _fewest(stages, len(loads), slow, speed, rows)
    while slow - fast > PRECISION * slow:
        middle = (slow + fast) / 2
        found = _fewest(stages, len(loads), middle, speed, rows)
        if found is not None and sum(count for _, count in found) <= devices:
            slow, best = middle, found
        else:
            fast = middle
    assert best is not None  # one device can do it in the time of one device
    sizes, replicas = tuple(size for size, _ in best), tuple(count for _, count in best)
    return Stages(sizes, replicas, al_seconds(loads, sizes, replicas, speed))


@dataclass(frozen=True)
class _Stage:
    work: float
    update: float
    weights: float
    passing: float
    """Bytes that arrive or leave, whichever are more."""

    def seconds(self, replicas: int, speed: float) -> float:
        own = self.work / replicas + self.update + all_reduce(self.weights, replicas, speed)
        return max(own, self.passing / replicas / speed)

    def fewest(self, limit: float, speed: float, rows: int) -> int | None:
        """Return how many replicas make it as fast as `limit`; None where no number does."""
        if self.seconds(1, speed) <= limit:
            return 1
        least = max(2.0, self.passing / speed / limit)
        # work / r + update + 2 (r - 1) / r * averaged <= limit, solved for r; without work to divide more is slower
        averaged = self.weights / speed
        left = limit - self.update - 2 * averaged
        if self.work > 2 * averaged:
            if left <= 0:
                return None
            least = max(least, (self.work - 2 * averaged) / left)
        count = math.ceil(least * (1 - 1e-12))
        return count if count <= rows and self.seconds(count, speed) <= limit * (1 + 1e-9) else None


def _stage(loads: Sequence[Load], start: int, stop: int) -> _Stage:
    own = loads[start:stop]
    arriving = loads[start - 1].sent if start else 0.0
    leaving = own[-1].sent if stop < len(loads) else 0.0
    return _Stage(
        sum(one.work for one in own),
        sum(one.update for one in own),
        sum(one.weights for one in own),
        max(arriving, leaving),
    )


def _fewest(
    stages: dict[tuple[int, int], _Stage], layers: int, limit: float, speed: float, rows: int
) -> list[tuple[int, int]] | None:
    """Return the cut, as (layers, replicas) per stage, that keeps to `limit` with the fewest devices."""
    best: list[tuple[int, list[tuple[int, int]]] | None] = [(0, [])]
    for stop in range(1, layers + 1):
        found: tuple[int, list[tuple[int, int]]] | None = None
        for start in range(stop):
            before, count = best[start], stages[start, stop].fewest(limit, speed, rows)
            if before is not None and count is not None and (found is None or before[0] + count < found[0]):
                found = before[0] + count, [*before[1], (stop - start, count)]
        best.append(found)
    last = best[layers]
    return None if last is None else last[1]
