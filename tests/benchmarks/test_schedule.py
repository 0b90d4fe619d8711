"""The schedule's table, with figures that meet its targets and figures that miss them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks.schedule.layers import layer_times
from benchmarks.schedule.table import markdown, most, shares, targets, utilization
from tests.benchmarks.made_up import results, verdicts


def made(continuous: dict[str, float], engine_us: float) -> dict[str, Any]:
    run = {"repeat": 0, "layers": 4, "balance": "balanced", "times": [0.01] * 4}
    overlap = {"what": "overlap", **run, "sequential": 0.042, "al-fm": 0.03, "continuous": continuous}
    engine = {"what": "engine", "repeat": 0, "layers": 4, "workers": 2, "engine_us": engine_us}
    queue = {"what": "bare queue", "repeat": 0, "layers": 4, "bare_queue_us": 9.0}
    return results({"milliseconds": 10.0, "repeats": 1}, [engine, queue, overlap])


def test_most_is_the_smaller_of_the_workers_and_the_sum_over_the_largest() -> None:
    assert most([0.01] * 4, 3) == 3
    assert most([1.0, 2.0, 1.0], 3) == 2


def test_targets_that_are_met() -> None:
    found = made({"2": 0.0207, "4": 0.0105}, 44.0)
    assert shares(found["runs"][2:], "4") == [pytest.approx(1.0)]
    assert [target.met for target in targets(found)] == [True, True]
    shown = markdown(found)
    assert "| 4, balanced | 2.03x of 2.00 (1.01) | 4.00x of 4.00 (1.00) | 1.40x | 95.2 to 96.6 % |" in shown
    assert "| 4 | 44 | 9 |" in shown
    assert set(verdicts(shown).values()) == {"met"}


def test_targets_that_are_missed_name_the_worst_case() -> None:
    found = made({"2": 0.0207, "4": 0.0150}, 70.0)
    shown = markdown(found)
    assert "**2.80x of 4.00 (0.70)**" in shown
    speedup, engine = verdicts(shown).items()
    assert speedup == (
        "speed-up over min(workers, sum / largest), 1 of 2 cases; the least: 4 layers, balanced, 4 workers",
        "**missed**",
    )
    assert engine == (
        "the engine's time per batch and layer, 0 of 1 cases; the most: 4 layers, 2 workers",
        "**missed**",
    )


def test_a_figure_that_can_be_exceeded_is_not_called_a_bound_and_a_utilization_cannot_be() -> None:
    found = made({"2": 0.0201, "4": 0.0101}, 44.0)
    assert not re.search(r"ceiling|bound|efficiency", markdown(found), flags=re.IGNORECASE)
    assert utilization(found["runs"][2:], "4") <= 1


def test_layer_times_have_the_mean_and_the_spread_that_they_say() -> None:
    assert layer_times(4, 0.01, "balanced") == [0.01] * 4
    assert layer_times(3, 0.01, "ramp") == pytest.approx([0.005, 0.01, 0.015])
    assert layer_times(4, 0.01, "one slow") == [0.01, 0.01, 0.02, 0.01]
