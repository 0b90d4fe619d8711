"""The cut over ranks is the best one, by trying all of them."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import PlacementError
from ALPackage.placement.over_ranks import over_ranks


def slowest(costs: list[float], sent: list[int], workers: list[int], speed: float, begins: tuple[int, ...]) -> float:
    edges = [sent[start - 1] / speed for start in begins[1:]]
    stages = [costs[start:stop] for start, stop in pairwise([*begins, len(costs)])]
    return max([*edges, *(max(sum(one) / count, *one) for one, count in zip(stages, workers, strict=True))])


@given(st.data())
def test_no_other_cut_is_faster(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 7))
    costs = data.draw(st.lists(st.integers(1, 20).map(float), min_size=layers, max_size=layers))
    sent = data.draw(st.lists(st.integers(0, 50), min_size=layers, max_size=layers))
    world = data.draw(st.integers(1, layers))
    workers = data.draw(st.lists(st.integers(1, 3), min_size=world, max_size=world))
    speed = data.draw(st.sampled_from([1.0, 10.0, float("inf")]))
    ranks = over_ranks(costs, sent, world, workers=workers, speed=speed)
    assert sorted(set(ranks)) == list(range(world))
    assert ranks == sorted(ranks)
    found = slowest(costs, sent, workers, speed, tuple(ranks.index(rank) for rank in range(world)))
    cuts = [(0, *begins) for begins in combinations(range(1, layers), world - 1)]
    assert found == pytest.approx(min(slowest(costs, sent, workers, speed, begins) for begins in cuts))


def test_a_slow_connection_moves_the_cut_to_where_little_is_sent() -> None:
    """VGG at half width, batch 64: 8.4 MB behind the first layer, 1 MB behind the third."""
    costs, sent = [0.35, 0.31, 0.08, 0.03], [8_400_000, 4_200_000, 1_000_000, 0]
    assert over_ranks(costs, sent, 2, speed=1e9) == [0, 1, 1, 1]
    assert over_ranks(costs, sent, 2, speed=1.25e7) == [0, 0, 1, 1]
    assert over_ranks(costs, sent, 2, speed=1e6) == [0, 0, 0, 1]


def test_of_equally_fast_cuts_it_sends_the_least() -> None:
    assert over_ranks([4.0, 1.0, 1.0], [8, 1, 0], 2) == [0, 1, 1]
    assert over_ranks([4.0, 1.0, 1.0], [8, 1, 0], 2, workers=[2, 1]) == [0, 0, 1]


def test_more_ranks_than_layers_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"there are 3 of them for 2 layers, .* start at most 2 processes"):
        over_ranks([1.0, 1.0], [1, 1], 3)
