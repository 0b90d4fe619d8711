"""The best assignment of layers to devices that are alike, exact, neighbors or not.

Nothing flows back between layers, so a device may have any of them. What a device does per batch depends only on the
set of its layers: their work, and a hand-over for each of them whose input comes from another device. So the best
assignment is the best division of the layers into sets, which dynamic programming over sets finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import PlacementError
from ..stage.threads import IntraOpThreads
from .partition import partition

#: The most layers for which all sets are looked at: they have 2^16 of them, and 3^16 pairs of disjoint ones.
MOST_LAYERS = 16
#: The least share of the busiest device's time that has to be saved for layers that are not neighbors to be mixed.
LEAST_GAIN = 0.03
#: Pairs of sets that are looked at together, so many that they stay in a core's cache.
TOGETHER = 2**17


def assign(
    costs: Sequence[float],
    parts: int,
    *,
    hand_over: Sequence[float] | None = None,
    memory: Sequence[int] | None = None,
    capacity: Sequence[int] | None = None,
) -> list[int]:
    """Return the device of every layer, by number, such that the busiest of at most `parts` devices does least.

    Arguments and errors as for `partition`, whose cut into neighbors is taken where there are more than
    MOST_LAYERS layers, and where a mix would save less than LEAST_GAIN.
    """
    refused: PlacementError | None = None
    neighbors: list[int] = []
    enough = float("inf")
    try:
        sizes = partition(costs, parts, hand_over=hand_over, memory=memory, capacity=capacity)
    except PlacementError as error:
        refused = error
    else:
        neighbors = [number for number, size in enumerate(sizes) for _ in range(size)]
        enough = (1 - LEAST_GAIN) * max(loads(neighbors, costs, hand_over))
        # No division can be better than this.
        if len(costs) > MOST_LAYERS or enough <= max(max(costs), sum(costs) / parts):
            return neighbors
    # The tensors are small: threads would wait for each other.
    with IntraOpThreads(1):
        mixed = best_sets(costs, parts, hand_over=hand_over, memory=memory, capacity=capacity)
    if mixed is not None and max(loads(mixed, costs, hand_over)) < enough:
        return mixed
    if refused is not None:
        raise refused
    return neighbors


def loads(where: Sequence[int], costs: Sequence[float], hand_over: Sequence[float] | None = None) -> list[float]:
    """Return what each device does per batch if layer i is on device where[i]."""
    found = [0.0] * (max(where) + 1)
    for layer, device in enumerate(where):
        received = hand_over[layer - 1] if hand_over and layer and where[layer - 1] != device else 0.0
        found[device] += costs[layer] + received
    return found


def best_sets(
    costs: Sequence[float],
    parts: int,
    *,
    hand_over: Sequence[float] | None = None,
    memory: Sequence[int] | None = None,
    capacity: Sequence[int] | None = None,
) -> list[int] | None:
    """Return the device of every layer such that the busiest does least; None where nothing fits.

    Among those it takes the fewest devices, and then the least work of all devices together, which is the fewest and
    cheapest hand-overs.
    """
    layers = len(costs)
    if layers > MOST_LAYERS:
        return None
    parts = min(parts, layers)
    work = _set_loads(costs, hand_over)
    size = _set_loads([float(value) for value in memory or [0] * layers], None)
    infinity = torch.full_like(work, torch.inf)
    own = [work if capacity is None else torch.where(size <= capacity[part], work, infinity) for part in range(parts)]
    # The least that the busiest device can do, with each number of devices.
    busiest, used = _least(own, torch.maximum)
    if busiest == torch.inf:
        return None
    # Of all divisions with that number of devices and that load, the one with the least work in all.
    allowed = [torch.where(table <= busiest * (1 + 1e-12), table, infinity) for table in own[:used]]
    tables = _tables(allowed, torch.add)
    where = [0] * layers
    left = len(work) - 1
    every = torch.arange(len(work))
    for part in range(used - 1, -1, -1):
        inside = every[(every & ~left) == 0]
        total = allowed[part][inside] + (tables[part - 1] if part else _only_empty(work))[left ^ inside]
        chosen = int(inside[total.argmin()])
        for layer in range(layers):
            if chosen >> layer & 1:
                where[layer] = part
        left ^= chosen
    # In the order of their first layers, where every device has room for what another one was given.
    ordered = _in_order(where)
    needed = loads(ordered, memory or [0] * layers)
    fits = capacity is None or all(need <= free for need, free in zip(needed, capacity, strict=False))
    return ordered if fits else where


def _set_loads(costs: Sequence[float], hand_over: Sequence[float] | None) -> Tensor:
    """Return what every set of layers costs a device, by the set's number: layer i is bit i."""
    found = torch.zeros(1, dtype=torch.float64)
    for layer, cost in enumerate(costs):
        more = torch.full_like(found, cost)
        if hand_over and layer:
            # The upper half of the sets has the layer before this one, and so its output.
            more[: len(found) // 2] += hand_over[layer - 1]
        found = torch.cat([found, found + more])
    return found


def _only_empty(like: Tensor) -> Tensor:
    """Return the table of no device: it can do nothing."""
    table = torch.full_like(like, torch.inf)
    table[0] = 0.0
    return table


def _least(own: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, int]:
    """Return the best value for all layers, and the fewest devices that reach it."""
    table = own[0]
    values = [float(table[-1])]
    for number, more in enumerate(own[1:], start=2):
        # The whole is the only set that matters at the end.
        values.append(float(combine(more, table.flip(0)).min()))
        if number < len(own):
            table = _combined(more[None], table[None], combine)[0]
    best = min(values)
    return best, next(number for number, value in enumerate(values, start=1) if value <= best * (1 + 1e-12))


def _tables(own: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Return, for the first 1, 2, .. devices but the last one, the best value of every set."""
    tables = [own[0]]
    for more in own[1:-1]:
        tables.append(_combined(more[None], tables[-1][None], combine)[0])
    return tables


def _combined(one: Tensor, other: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return for every set the least combine(one[part], other[rest]) over its divisions into a part and a rest.

    Rows are independent of each other. A set with the last layer has it in the part or in the rest; one without has it
    in neither: three halves of half the size.
    """
    rows, size = one.shape
    if size == 1:
        return combine(one, other)
    low, high = one.chunk(2, dim=1)
    rest_low, rest_high = other.chunk(2, dim=1)
    pairs = ((low, rest_low), (high, rest_low), (low, rest_high))
    if rows * 3 ** (size.bit_length() - 1) > TOGETHER:
        without, first, second = (_combined(part, rest, combine) for part, rest in pairs)
    else:
        parts, rests = zip(*pairs, strict=True)
        without, first, second = _combined(torch.cat(parts), torch.cat(rests), combine).chunk(3)
    return torch.cat([without, torch.minimum(first, second)], dim=1)


def _in_order(where: Sequence[int]) -> list[int]:
    """Number the devices in the order of their first layers."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(device, len(numbers)) for device in where]
