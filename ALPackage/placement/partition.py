"""The best cut of a row of layers into contiguous stages, exact, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..errors import PlacementError

GIB = 2**30


def partition(
    costs: Sequence[float],
    parts: int,
    *,
    hand_over: Sequence[float] | None = None,
    memory: Sequence[int] | None = None,
    capacity: Sequence[int] | None = None,
) -> list[int]:
    """Return the sizes of at most `parts` contiguous stages whose largest sum of `costs` is as small as possible.

    Among equally good cuts it takes the fewest stages, and then the longest last stage. `hand_over`: what a stage pays
    to receive the output of each layer, if that is the last one of the stage before. `memory` (bytes per layer) and
    `capacity` (bytes per device, in order): every stage must fit its device. O(parts * layers^2).
    Raises PlacementError where nothing fits, and ValueError without layers or parts.
    """
    layers = len(costs)
    if not layers or parts < 1:
        raise ValueError(f"partition: got {layers} layers and {parts} parts; expected at least one of each")
    parts = min(parts, layers)
    # Prefix sums: the cost of any stage is one subtraction.
    cost_to = [0.0, *accumulate(costs)]
    bytes_to = [0, *accumulate(memory or [0] * layers)]
    # What a stage pays for its input, by its first layer; the first stage has it from the loader.
    receive = [0.0, *(hand_over or [0.0] * layers)]

    def fits(part: int, start: int, stop: int) -> bool:
        return capacity is None or bytes_to[stop] - bytes_to[start] <= capacity[part]

    # best[stop]: (largest sum, where the last stage starts) of the first `stop` layers in part + 1 stages.
    tables: list[list[tuple[float, int] | None]] = []
    for part in range(parts):
        best: list[tuple[float, int] | None] = [None] * (layers + 1)
        for stop in range(part + 1, layers + 1):
            # Every stage before this one has at least one layer; the first stage starts at 0.
            for start in range(part, stop) if part else (0,):
                before = tables[-1][start] if part else (0.0, 0)
                if before is None or not fits(part, start, stop):
                    continue
                largest = max(before[0], cost_to[stop] - cost_to[start] + (receive[start] if start else 0.0))
                known = best[stop]
                if known is None or largest < known[0]:
                    best[stop] = largest, start
        tables.append(best)
    complete = [(entry[0], used) for used, table in enumerate(tables, start=1) if (entry := table[layers]) is not None]
    if not complete:
        raise PlacementError(too_large(memory or [0], capacity or []))
    # Walk back from the last stage: each entry says where its stage starts, which is where the one before stops.
    sizes: list[int] = []
    stop = layers
    for part in range(min(complete)[1] - 1, -1, -1):
        entry = tables[part][stop]
        assert entry is not None  # a complete cut has all its stages
        sizes.insert(0, stop - entry[1])
        stop = entry[1]
    return sizes


def too_large(memory: Sequence[int], capacity: Sequence[int]) -> str:
    """Return what to say where layers of so many bytes do not fit devices of so many."""
    have = ", ".join(f"{size / GIB:.2f}" for size in capacity)
    return (
        f"the layers need {sum(memory) / GIB:.2f} GiB, the largest of them {max(memory) / GIB:.2f}, and no cut fits "
        f"devices with {have} GiB free: use a smaller batch or model, or more devices"
    )
