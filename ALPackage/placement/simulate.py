"""How long a run takes under each schedule, from the layers' costs alone."""

from __future__ import annotations

from collections.abc import Sequence

from .cost import LayerCost


def simulate(
    schedule: str,
    costs: Sequence[LayerCost],
    sizes: Sequence[int],
    batches: int,
    *,
    depth: int = 2,
    overhead: float = 0.0,
) -> float:
    """Return the seconds that `batches` batches take, fill and drain included, with a device per stage.

    `sizes`: layers per stage, which matters to the continuous schedule alone. `depth`: batches that may wait between
    two stages. `overhead`: s per batch and stage for handing on. al-fm has a core for every layer. Raises ValueError.
    """
    if sum(sizes) != len(costs):
        raise ValueError(f"simulate: the stages have {sum(sizes)} layers, but there are {len(costs)}")
    if schedule == "sequential":
        return batches * sum(cost.total for cost in costs)
    if schedule == "al-fm":
        return batches * _joined(costs)
    if schedule == "continuous":
        return _continuous(costs, sizes, batches, depth, overhead)
    raise ValueError(f"simulate: got {schedule!r}; expected sequential, al-fm or continuous")


def _joined(costs: Sequence[LayerCost]) -> float:
    """Return the time of one batch: forward passes in a row, each backward pass beside the forward passes above it."""
    clock, end = 0.0, 0.0
    for cost in costs:
        clock += cost.forward
        end = max(end, clock + cost.backward)
    return end


def _continuous(costs: Sequence[LayerCost], sizes: Sequence[int], batches: int, depth: int, overhead: float) -> float:
    """Follow every batch through every stage.

    A stage takes a batch once it is done with the one before and the batch is there. It hands on before its last
    backward pass if the channel has a free place, otherwise after it, as soon as there is one. The last stage hands on
    at its end.
    """
    stages: list[tuple[float, float]] = []
    start = 0
    for size in sizes:
        layers = costs[start : start + size]
        start += size
        last = layers[-1].backward  # what comes after the hand-over
        stages.append((sum(cost.total for cost in layers) - last + overhead, last))
    count = len(stages)
    # When each stage took batch t, and when it was free again; only the last depth + 1 batches taken matter.
    taken = [[0.0] * batches for _ in range(count)]
    free = [0.0] * count
    for batch in range(batches):
        arrives = 0.0
        for stage, (until_last, last) in enumerate(stages):
            taken[stage][batch] = begin = max(arrives, free[stage])
            ready = begin + until_last
            done = ready + last
            if stage + 1 == count:
                free[stage] = done
                continue
            # A place is free once the batch that is `depth` ahead has been taken out of the channel.
            place = taken[stage + 1][batch - depth] if batch >= depth else 0.0
            arrives = ready if place <= ready else max(done, place)
            free[stage] = max(done, arrives)
    return max(free)
