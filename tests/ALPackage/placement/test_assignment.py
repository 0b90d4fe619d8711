"""Layers over devices: compared with all assignments, tried one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import PlacementError
from ALPackage.placement import assign, partition
from ALPackage.placement.assignment import LEAST_GAIN, best_sets, loads

COSTS = st.lists(st.integers(0, 20), min_size=1, max_size=6)


def every(layers: int, parts: int) -> list[tuple[int, ...]]:
    return list(product(range(min(parts, layers)), repeat=layers))


def busiest(where: list[int] | tuple[int, ...], costs: list[int], hand_over: list[int]) -> float:
    return max(loads(where, costs, hand_over))


@given(COSTS, st.integers(1, 4), st.data())
def test_no_assignment_is_better(costs: list[int], parts: int, data: st.DataObject) -> None:
    hand_over = data.draw(st.lists(st.integers(0, 9), min_size=len(costs), max_size=len(costs)))
    found = best_sets(costs, parts, hand_over=hand_over)
    assert found is not None
    choices = every(len(costs), parts)
    least = min(busiest(where, costs, hand_over) for where in choices)
    assert busiest(found, costs, hand_over) == least
    equal = [where for where in choices if busiest(where, costs, hand_over) == least]
    fewest = min(len(set(where)) for where in equal)
    assert len(set(found)) == fewest
    work = [sum(loads(where, costs, hand_over)) for where in equal if len(set(where)) == fewest]
    assert sum(loads(found, costs, hand_over)) == min(work), "a hand-over that brings nothing"
    assert list(dict.fromkeys(found)) == sorted(set(found)), "in the order of their first layers"


@given(COSTS, st.data())
def test_with_memory_it_is_the_best_of_those_that_fit(costs: list[int], data: st.DataObject) -> None:
    memory = data.draw(st.lists(st.integers(1, 9), min_size=len(costs), max_size=len(costs)))
    capacity = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    fitting = [
        where
        for where in every(len(costs), len(capacity))
        if all(used <= have for used, have in zip(loads(where, memory), capacity, strict=False))
    ]
    found = best_sets(costs, len(capacity), memory=memory, capacity=capacity)
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert tuple(found) in fitting
    assert max(loads(found, costs)) == min(max(loads(where, costs)) for where in fitting)


@given(COSTS, st.integers(1, 4), st.data())
def test_neighbors_unless_a_mix_gains_enough(costs: list[int], parts: int, data: st.DataObject) -> None:
    hand_over = data.draw(st.lists(st.integers(0, 3), min_size=len(costs), max_size=len(costs)))
    found = assign(costs, parts, hand_over=hand_over)
    sizes = partition(costs, parts, hand_over=hand_over)
    neighbors = [number for number, size in enumerate(sizes) for _ in range(size)]
    cut, least = busiest(neighbors, costs, hand_over), best_sets(costs, parts, hand_over=hand_over)
    assert least is not None
    if busiest(least, costs, hand_over) < (1 - LEAST_GAIN) * cut:
        assert busiest(found, costs, hand_over) == busiest(least, costs, hand_over)
    else:
        assert found == neighbors


def test_by_hand() -> None:
    assert assign([4, 16, 9, 11], 2) == [0, 0, 1, 1]
    assert assign([5, 9, 5, 1], 2) == [0, 1, 0, 1]
    # Receiving costs: 5 + (5 + 2) + 1 = 13 and 9 + 2 = 11, against 14 of the best neighbors.
    assert assign([5, 9, 5, 1], 2, hand_over=[2, 2, 2, 2]) == [0, 1, 0, 0]
    assert assign([5, 9, 5, 1], 2, hand_over=[3, 3, 3, 3]) == [0, 0, 1, 1]
    # A gain of 2 %, from 103 to 101, is none.
    assert assign([51, 49, 52, 50], 2) == [0, 0, 1, 1]


def test_memory_can_make_a_mix_the_only_way() -> None:
    assert assign([1, 1, 1], 2, memory=[2, 3, 2], capacity=[4, 3]) == [0, 1, 0]
    with pytest.raises(PlacementError, match="no cut fits devices with"):
        assign([1, 1, 1], 2, memory=[2, 3, 2], capacity=[3, 3])


def test_many_layers_stay_neighbors() -> None:
    costs = [5.0, 9.0, 5.0, 1.0] + [0.0] * 13
    assert assign(costs, 2) == [0] * 2 + [1] * 15
    assert assign(costs[:16], 2)[:4] == [0, 1, 0, 1]
    with pytest.raises(PlacementError):
        assign([1.0] * 17, 2, memory=[2, 3, 2] + [0] * 14, capacity=[4, 3])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        assign([], 1)


def test_the_callers_threads_stay() -> None:
    before = torch.get_num_threads()
    assign([5, 9, 5, 1], 2)
    assert torch.get_num_threads() == before
