"""The cut over ranks is the best one, by trying all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import PlacementError
from ALPackage.placement.over_ranks import Stages, best_replicas, over_ranks, ranks_named


def slowest(stages: Stages, begins: tuple[int, ...], replicas: tuple[int, ...]) -> float:
    edges = [stages.sent[start - 1] / stages.speed for start in begins[1:]]
    found = [0.0]
    for (start, stop), count in zip(pairwise([*begins, len(stages.costs)]), replicas, strict=True):
        costs = [cost / count for cost in stages.costs[start:stop]]
        averages = [2 * (count - 1) / count * size / stages.speed for size in stages.averaged[start:stop]]
        found += [sum(costs) / stages.workers, sum(averages)]
        found += [cost + average for cost, average in zip(costs, averages, strict=True)]
    return max([*edges, *found])


def draw_stages(data: st.DataObject, layers: int) -> Stages:
    """Draw layers with whole numbers of seconds and bytes."""
    costs = data.draw(st.lists(st.integers(1, 20).map(float), min_size=layers, max_size=layers))
    sent, averaged = (data.draw(st.lists(st.integers(0, 50), min_size=layers, max_size=layers)) for _ in range(2))
    speed = data.draw(st.sampled_from([1.0, 10.0, float("inf")]))
    return Stages(costs, sent, averaged, data.draw(st.integers(1, 3)), speed)


@given(st.data())
def test_no_other_cut_is_faster(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 7))
    stages, count = draw_stages(data, layers), data.draw(st.integers(1, layers))
    replicas = tuple(data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    firsts = [0, *accumulate(replicas)][:-1]
    ranks = over_ranks(**vars(stages), world=sum(replicas), replicas=replicas)
    assert sorted(set(ranks)) == firsts
    assert ranks == sorted(ranks)
    found = slowest(stages, tuple(map(ranks.index, firsts)), replicas)
    assert stages.slowest(ranks, replicas) == pytest.approx(found)
    cuts = [(0, *begins) for begins in combinations(range(1, layers), count - 1)]
    assert found == pytest.approx(min(slowest(stages, begins, replicas) for begins in cuts))


@given(st.data())
def test_no_other_numbers_of_replicas_are_faster(data: st.DataObject) -> None:
    layers, world = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    stages = draw_stages(data, layers)
    seconds, replicas = best_replicas(stages, world)
    assert sum(replicas) == world
    ranks = over_ranks(**vars(stages), world=world, replicas=replicas)
    begins = tuple(map(ranks.index, dict.fromkeys(ranks)))
    assert seconds == pytest.approx(slowest(stages, begins, tuple(replicas)))
    every = [
        slowest(stages, (0, *begins), counts)
        for number in range(1, min(layers, world) + 1)
        for begins in combinations(range(1, layers), number - 1)
        for counts in product(range(1, world + 1), repeat=number)
        if sum(counts) == world
    ]
    assert seconds == pytest.approx(min(every))


def test_a_layer_that_is_most_of_the_work_gets_the_replicas() -> None:
    stages = Stages([1.0, 4.0, 1.0], [0, 0, 0], [1, 1, 1])
    assert best_replicas(stages, 4) == (1.5, [4]), "where averaging costs nothing, all do a part of everything"
    assert best_replicas(replace(stages, speed=1.0), 3) == (3.0, [1, 2]), "half of 4 s, and 1 s for the average"
    assert best_replicas(replace(stages, speed=0.1), 3) == (4.0, [1, 1, 1]), "averaging would take longer"


def test_a_slow_connection_moves_the_cut_to_where_little_is_sent() -> None:
    """VGG at half width, batch 64: 8.4 MB behind the first layer, 1 MB behind the third."""
    costs, sent = [0.35, 0.31, 0.08, 0.03], [8_400_000, 4_200_000, 1_000_000, 0]
    assert over_ranks(costs, sent, 2, speed=1e9) == [0, 1, 1, 1]
    assert over_ranks(costs, sent, 2, speed=1.25e7) == [0, 0, 1, 1]
    assert over_ranks(costs, sent, 2, speed=1e6) == [0, 0, 0, 1]


def test_of_equally_fast_cuts_it_sends_the_least() -> None:
    assert over_ranks([4.0, 1.0, 1.0], [8, 1, 0], 2) == [0, 1, 1]
    assert over_ranks([4.0, 1.0, 1.0], [1, 8, 0], 2, workers=2) == [0, 1, 1]


def test_more_ranks_than_layers_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"there are 3 of them for 2 layers, .* start at most 2 processes"):
        over_ranks([1.0, 1.0], [1, 1], 3)


@pytest.mark.parametrize(
    ("name", "ranks"), [("rank3", [3]), ("rank3:cuda:0", [3]), ("rank12-14:cuda", [12, 13, 14]), ("cuda:0", [])]
)
def test_a_device_by_name_tells_its_ranks(name: str, ranks: list[int]) -> None:
    assert list(ranks_named(name)) == ranks
