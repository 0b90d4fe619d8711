"""A plan says who may run what, and what bounds it, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ALPackage.placement import Plan
from ALPackage.placement.cost import LayerCost
from ALPackage.placement.limits import limits
from ALPackage.stage.crew import bound, crew

VGG = [LayerCost(name, ms / 3e3, ms / 1.5e3, 2**20) for name, ms in zip("abcd", (150, 120, 30, 10), strict=True)]


def plan(*names: str, at_once: float = 64.0, costs: list[LayerCost] = VGG, **options: Any) -> Plan:
    """Return the plan of layers that are placed so."""
    devices = tuple(torch.device(name) for name in names)
    return Plan(tuple(costs), devices, tuple(crew(devices, **options)), at_once)


def test_workers_that_share_all_layers() -> None:
    made = plan(*["cpu"] * 4, workers=2)
    assert made.ceiling == pytest.approx(2.0)
    assert (made.bound_by.kind, made.bound_by.workers) == ("workers", ("cpu:0", "cpu:1"))
    more = plan(*["cpu"] * 4, workers=7)
    assert more.ceiling == pytest.approx(310 / 150)
    assert (more.bound_by.kind, more.bound_by.layers) == ("layer", (0,))


def test_the_text_is_a_table_with_shares_and_two_sentences() -> None:
    lines = plan(*["cpu"] * 4, workers=2).text().splitlines()
    assert lines[0].split() == ["layer", "forward", "backward", "share", "memory"]
    assert lines[1].split() == ["a", "50.0", "ms", "100.0", "ms", "48", "%", "1", "MiB"]
    assert lines[5:] == [
        "2 workers share all layers: estimated ceiling 2.00x over one",
        "a is 48 % of the work: no number of workers brings more than 2.07x",
    ]


@pytest.mark.parametrize(
    ("made", "ceiling", "sentences"),
    [
        (
            plan(*["cpu"] * 4, workers=1),
            1.0,
            ["1 worker, cpu:0, runs all layers: nothing is done at the same time"],
        ),
        (
            plan(*["cpu"] * 4, workers=4, at_once=1.5),
            1.5,
            [
                "4 workers share all layers: estimated ceiling 1.50x over one",
                "the cores are enough for 1.5 of the CPU workers at a time",
            ],
        ),
        (
            plan("cpu:0", "cpu:1", "cpu:1", "cpu:1"),
            310 / 160,
            [
                "2 workers (cpu:0: a; cpu:1: b, c, d): estimated ceiling 1.94x over one",
                "cpu:1 sets the pace: it alone may run b, c, d, 52 % of the work",
            ],
        ),
        (
            plan("cpu:0", "cpu:0", "cpu", "cpu", workers=3),
            310 / 270,
            [
                "3 workers (cpu:0: a, b, c, d; cpu:1 and cpu:2: c, d): estimated ceiling 1.15x over one",
                "cpu:0 sets the pace: it alone may run a, b, 87 % of the work",
            ],
        ),
        (
            plan("cuda:0", "cuda:0", "cuda:1", "cuda:1", streams_per_device=2),
            310 / 150,
            [
                "4 workers (cuda:0 stream 0 and cuda:0 stream 1: a, b; cuda:1 stream 0 and cuda:1 stream 1: c, d): "
                "estimated ceiling 2.07x over one"
            ],
        ),
    ],
)
def test_what_bounds_a_crew_is_named(made: Plan, ceiling: float, sentences: list[str]) -> None:
    assert made.ceiling == pytest.approx(ceiling)
    assert made.text().splitlines()[5:-1] == sentences
    assert made.text().splitlines()[-1] == "a is 48 % of the work: no number of workers brings more than 2.07x"


def test_one_layer_is_all_of_the_work() -> None:
    made = plan("cpu", costs=VGG[:1], workers=2)
    assert made.ceiling == 1.0
    assert made.text().splitlines()[-1] == "a is all of the work: more workers bring nothing"
    assert plan("cpu", costs=[LayerCost("a", 0.0, 0.0)]).ceiling == 1.0


def test_a_hand_over_is_the_receivers_work() -> None:
    costs = [LayerCost("a", 1.0, 2.0, hand_over=0.5), LayerCost("b", 1.0, 2.0, hand_over=9.0)]
    apart = plan("cuda:0", "cuda:1", costs=costs)
    assert apart.seconds == [3.0, 3.5]
    assert apart.ceiling == pytest.approx(6.0 / 3.5)
    assert plan("cuda:0", "cuda:0", costs=costs).seconds == [3.0, 3.0]


def test_json_holds_what_the_text_says() -> None:
    found = plan("cpu:0", "cpu:1", "cpu:1", "cpu:1").to_json()
    assert found["ceiling"] == 1.9375
    assert found["bound_by"] == "workers cpu:1"
    assert found["workers"] == [{"name": "cpu:0", "layers": ["a"]}, {"name": "cpu:1", "layers": ["b", "c", "d"]}]
    assert found["layers"][0] == {
        "name": "a",
        "forward_ms": 50.0,
        "backward_ms": 100.0,
        "hand_over_ms": 0.0,
        "bytes": 2**20,
        "sent_bytes": 0,
        "device": "cpu:0",
    }
    assert plan(*["cpu"] * 4, workers=4).to_json()["bound_by"] == "layer a"
    assert plan(*["cpu"] * 4, workers=4, at_once=1.0).to_json()["bound_by"] == "cores"


DEVICES = st.sampled_from(["cpu", "cpu:0", "cpu:1", "cpu:2", "cuda:0", "cuda:1"])


@given(st.lists(st.tuples(st.integers(0, 9), DEVICES), min_size=1, max_size=6), st.integers(3, 5), st.integers(1, 3))
def test_the_strongest_limit_is_the_bound(layers: list[tuple[int, str]], workers: int, at_once: int) -> None:
    costs = [float(cost) for cost, _ in layers]
    members = crew([torch.device(name) for _, name in layers], workers=workers, streams_per_device=2)
    strongest, *others = limits(costs, members, at_once)
    assert strongest.seconds == pytest.approx(bound(costs, members, at_once))
    assert all(other.seconds <= strongest.seconds + 1e-9 for other in others)
    names = {member.name for member in members}
    assert set(strongest.workers) <= names
