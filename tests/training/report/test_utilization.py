"""Shares of time, ceiling, speed-up and advice, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage.stage.trace import Usage
from training.report.utilization import measure_utilization

COSTS = [("a", 0.030), ("b", 0.010), ("c", 0.010)]


def used(device: str, layers: str, busy: float, **others: float) -> Usage:
    """Return the usage, in s, of a worker with the layers that `layers` names, divided by spaces."""
    return Usage(device, layers.split(), busy=busy, **others)


TWO = [used("cpu:0", "a", 6.0, wait_input=1.0, wait_space=2.0, copy=0.5), used("cpu:1", "b c", 3.0, wait_input=0.3)]


def test_shares_are_in_percent_of_the_training_time() -> None:
    rows = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous").rows
    assert [(row.device, row.layers) for row in rows] == [("cpu:0", ["a"]), ("cpu:1", ["b", "c"])]
    first, second = rows
    assert (first.busy, first.wait_input, first.wait_space, first.copy) == pytest.approx((60, 10, 20, 5))
    assert (second.busy, second.wait_input, second.wait_space, second.copy) == pytest.approx((30, 3, 0, 0))


def test_ceiling_speedup_and_efficiency_follow_from_the_costs() -> None:
    found = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous")
    assert found.ceiling == pytest.approx(50 / 30)
    assert found.speedup == pytest.approx(250 * 0.050 / 10.0)
    assert found.efficiency == pytest.approx(1.25 / (5 / 3))
    assert found.bottleneck == "a"


def test_without_costs_the_ceiling_follows_from_the_busy_times() -> None:
    found = measure_utilization(TWO, 10.0, costs=None, batches=250, schedule="continuous")
    assert found.ceiling == pytest.approx(9.0 / 6.0)
    assert found.speedup is None
    assert found.efficiency is None
    assert found.bottleneck == "a"
    assert "ceiling" not in found.text()


def test_the_ceiling_is_no_more_than_can_work_at_once() -> None:
    found = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous", at_once=1.25)
    assert found.ceiling == 1.25
    assert found.efficiency == pytest.approx(1.0)
    assert "2 workers share the cores" in found.advice


def test_the_bottleneck_is_the_dearest_layer_of_the_dearest_stage() -> None:
    costs = [("a", 0.030), ("b", 0.015), ("c", 0.025)]
    assert measure_utilization(TWO, 10.0, costs=costs, batches=1, schedule="continuous").bottleneck == "c"
    alone = measure_utilization([used("cpu:0", "a b c", 9.0)], 9.0, costs=costs, batches=9, schedule="continuous")
    assert (alone.ceiling, alone.bottleneck) == (1.0, "a")
    assert len(alone.text().splitlines()) == 1 + 1 + 1, "one stage has no efficiency to tell"


def test_the_text_is_an_aligned_table_and_two_sentences() -> None:
    found = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous")
    assert found.text().splitlines() == [
        "device  busy  waits for input  waits for space  copies  layers",
        "cpu:0   60 %  10 %             20 %             5 %     a",
        "cpu:1   30 %  3 %              0 %              0 %     b c",
        "1.25x one device of a ceiling of 1.67x: 75 % efficiency; bottleneck a",
        "advice: a alone sets the pace; make it cheaper or divide it into two layers",
    ]


def test_json_holds_rounded_figures() -> None:
    found = measure_utilization(TWO, 9.0, costs=COSTS, batches=250, schedule="al-fm").to_json()
    assert found["devices"][0] == {
        "device": "cpu:0",
        "layers": ["a"],
        "busy": 66.67,
        "wait_input": 11.11,
        "wait_space": 22.22,
        "copy": 5.56,
    }
    assert (found["ceiling"], found["speedup"], found["efficiency"]) == (1.6667, 1.3889, 0.8333)
    assert found["bottleneck"] == "a"
    assert found["advice"].startswith("advice: every layer waits for the others")
    bare = measure_utilization(TWO, 9.0, costs=None, batches=250, schedule="al-fm").to_json()
    assert (bare["speedup"], bare["efficiency"]) == (None, None)


def test_a_run_in_which_nothing_happened_divides_by_nothing() -> None:
    idle = [used("cpu:0", "a", 0.0), used("cpu:1", "b c", 0.0)]
    found = measure_utilization(idle, 0.0, costs=None, batches=0, schedule="continuous")
    assert [row.busy for row in found.rows] == [0.0, 0.0]
    assert found.ceiling == 2.0


EVEN = [("a", 0.021), ("b", 0.010), ("c", 0.010)]


@pytest.mark.parametrize(
    ("schedule", "usages", "costs", "words"),
    [
        ("sequential", TWO, COSTS, "one worker does everything in turn; --schedule continuous"),
        ("al-fm", TWO, COSTS, "every layer waits for the others at every batch"),
        (
            "continuous",
            [used("cpu:0", "a", 5.0, wait_input=1.6), TWO[1]],
            COSTS,
            "the first stage waits 16 % of its time for data",
        ),
        ("continuous", [used("cpu:0", "a b c", 9.0)], COSTS, "one stage does everything; more devices, or --workers"),
        (
            "continuous",
            [used("cuda:0", "a", 5.0, wait_input=1.5, copy=2.0), TWO[1]],
            COSTS,
            "cuda:0 copies 20 % of its time; cut the layers where less is handed on",
        ),
        (
            "continuous",
            TWO,
            [("a", 0.01), ("b", 0.02), ("c", 0.02)],
            "cpu:1 sets the pace with b, c; a worker per layer (--workers 3) lets the system balance",
        ),
        (
            "continuous",
            [TWO[0], used("cuda:1", "b c", 3.0)],
            [("a", 0.01), ("b", 0.02), ("c", 0.02)],
            "cuda:1 sets the pace with b, c; another device could take some of them",
        ),
        ("continuous", TWO, COSTS, "a alone sets the pace"),
        ("continuous", [used("cpu:0", "a", 8.0), TWO[1]], EVEN, "but cpu:0 is busy only 80 % of the time"),
        ("continuous", [used("cpu:0", "a", 9.5), TWO[1]], EVEN, "the stages are balanced and busy"),
    ],
)
def test_advice_names_what_holds_the_run_back(
    schedule: str, usages: list[Usage], costs: list[tuple[str, float]], words: str
) -> None:
    found = measure_utilization(usages, 10.0, costs=costs, batches=100, schedule=schedule)
    assert found.advice.startswith("advice: ")
    assert words in found.advice
    assert found.text().splitlines()[-1] == found.advice


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8), st.integers(1, 1000))
def test_the_ceiling_lies_between_one_and_the_number_of_stages(costs: list[float], batches: int) -> None:
    usages = [used(f"cpu:{number}", str(number), cost) for number, cost in enumerate(costs)]
    named = [(str(number), cost) for number, cost in enumerate(costs)]
    ideal = max(costs) * batches  # no fill, no drain: the busiest stage works all the time
    found = measure_utilization(usages, ideal, costs=named, batches=batches, schedule="continuous")
    assert 1.0 - 1e-9 <= found.ceiling <= len(costs) + 1e-9
    assert found.efficiency == pytest.approx(1.0)
