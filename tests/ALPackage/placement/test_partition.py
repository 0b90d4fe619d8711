"""The cut is the best there is: compared with all cuts, tried one by one."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import PlacementError
from ALPackage.placement import partition


def sums(values: list[int], sizes: list[int]) -> list[int]:
    """Return the sum of each stage."""
    starts = [sum(sizes[:stage]) for stage in range(len(sizes))]
    return [sum(values[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def every_cut(layers: int, parts: int) -> list[list[int]]:
    """Return the sizes of all cuts into 1 .. parts stages."""
    cuts = []
    for count in range(1, min(parts, layers) + 1):
        for places in combinations(range(1, layers), count - 1):
            edges = [0, *places, layers]
            cuts.append([stop - start for start, stop in pairwise(edges)])
    return cuts


COSTS = st.lists(st.integers(0, 20), min_size=1, max_size=7)


@given(COSTS, st.integers(1, 8))
def test_no_cut_is_better_and_no_equal_one_has_fewer_stages(costs: list[int], parts: int) -> None:
    sizes = partition(costs, parts)
    cuts = every_cut(len(costs), parts)
    assert sizes in cuts
    least = min(max(sums(costs, cut)) for cut in cuts)
    assert max(sums(costs, sizes)) == least
    assert len(sizes) == min(len(cut) for cut in cuts if max(sums(costs, cut)) == least)


@given(COSTS, st.data())
def test_with_memory_it_is_the_best_of_those_that_fit(costs: list[int], data: st.DataObject) -> None:
    memory = data.draw(st.lists(st.integers(1, 9), min_size=len(costs), max_size=len(costs)))
    capacity = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    fitting = [
        cut
        for cut in every_cut(len(costs), len(capacity))
        if all(used <= have for used, have in zip(sums(memory, cut), capacity, strict=False))
    ]
    if not fitting:
        with pytest.raises(PlacementError, match="no cut fits"):
            partition(costs, len(capacity), memory=memory, capacity=capacity)
        return
    sizes = partition(costs, len(capacity), memory=memory, capacity=capacity)
    assert sizes in fitting
    assert max(sums(costs, sizes)) == min(max(sums(costs, cut)) for cut in fitting)


def test_by_hand() -> None:
    assert partition([151, 121, 30, 10], 2) == [1, 3]
    assert partition([151, 121, 30, 10], 4) == [1, 1, 2]
    assert partition([1, 1, 1, 1], 2) == [2, 2]
    assert partition([5.0], 3) == [1]
    gib = 2**30
    assert partition([9, 1, 1], 2, memory=[gib, gib, gib], capacity=[2 * gib, gib]) == [2, 1]


def test_receiving_is_work_of_the_stage_that_receives() -> None:
    assert partition([4, 4, 4, 4], 2, hand_over=[0, 0, 0, 0]) == [2, 2]
    assert partition([4, 4, 4, 4], 2, hand_over=[1, 9, 1, 1]) == [3, 1]
    assert partition([4, 4], 2, hand_over=[9, 0]) == [2]


def test_what_does_not_fit_is_told_in_gib() -> None:
    with pytest.raises(PlacementError) as caught:
        partition([1, 1], 2, memory=[2**31, 2**30], capacity=[2**30, 2**30])
    message = "the layers need 3.00 GiB, the largest of them 2.00, and no cut fits devices with 1.00, 1.00 GiB free"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("costs", "parts"), [([], 1), ([1.0], 0)])
def test_nothing_to_cut_is_refused(costs: list[float], parts: int) -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        partition(costs, parts)
