"""Utilization, its ceiling, the shares of layers and workers, and the estimated speed-up, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ALPackage.ranks.report import RankReport
from ALPackage.stage.trace import Usage
from training.report.utilization import Utilization, measure_utilization

COSTS = [("a", 0.030), ("b", 0.010), ("c", 0.010)]
PLACES = {name: torch.device("cpu") for name in "abc"}


def used(device: str, layers: Mapping[str, float], may_run: str = "abc", **others: float) -> Usage:
    """Return the usage, in s, of a worker that ran the layers for so long, each on 100 batches."""
    counts = dict.fromkeys(layers, 100)
    busy = sum(layers.values())
    return Usage(device, list(may_run), 300, busy, layer_busy=dict(layers), layer_batches=counts, **others)


TWO = [
    used("cpu:0", {"a": 6.0}, idle=3.0, no_data=1.0, copy=0.5),
    used("cpu:1", {"a": 2.0, "b": 2.0, "c": 1.0}, idle=1.0),
]


def measured(usages: list[Usage] = TWO, wall: float = 10.0, **changes: Any) -> Utilization:
    options: dict[str, Any] = {"schedule": "continuous", "batches": 200, "cores": 2} | changes
    return measure_utilization(usages, wall, options.pop("places", PLACES), **options)


def test_shares_are_in_percent_of_the_training_time_and_add_up() -> None:
    first, second = measured().rows
    assert (first.device, first.layers, first.ran) == ("cpu:0", ["a", "b", "c"], {"a": 100.0})
    assert (first.busy, first.data, first.copy, first.idle) == pytest.approx((60, 10, 5, 25))
    assert (second.busy, second.data, second.copy, second.idle) == pytest.approx((50, 0, 0, 50))
    assert second.ran == {"a": 40.0, "b": 40.0, "c": 20.0}


def test_a_layer_that_several_workers_run_is_one_layer() -> None:
    a, b, c = measured().layers
    assert (a.layer, a.workers, b.workers, c.workers) == ("a", {"cpu:0": 75.0, "cpu:1": 25.0}, *[{"cpu:1": 100.0}] * 2)
    assert (a.share, b.share, c.share) == pytest.approx((800 / 11, 200 / 11, 100 / 11))
    assert (a.ms_per_batch, b.ms_per_batch, c.ms_per_batch) == pytest.approx((40, 20, 10))


def test_utilization_and_its_ceiling_follow_from_the_times_inside_the_run() -> None:
    found = measured()
    assert found.at_work == pytest.approx(1.1)
    assert found.utilization == pytest.approx(55.0)
    assert found.ceiling == pytest.approx(11.0 / 8.0)
    assert found.bottleneck == "a"
    assert found.speedup_estimate is None
    assert "estimated" not in found.text()


def test_layers_that_are_tied_to_a_worker_lower_the_ceiling() -> None:
    times: list[dict[str, float]] = [{"a": 3.0, "b": 3.0}, {"c": 3.0}]
    shared = [used(f"cpu:{number}", layers) for number, layers in enumerate(times)]
    tied = [used("cpu:0", times[0], "ab"), used("cpu:1", times[1], "c")]
    assert measured(shared).ceiling == pytest.approx(2.0)
    assert measured(tied).ceiling == pytest.approx(1.5)


def test_the_speed_up_is_an_estimate_from_the_costs_before_the_run_and_is_not_clamped() -> None:
    assert measured(costs=COSTS).speedup_estimate == pytest.approx(200 * 0.050 / 10.0)
    # The costs were measured on a slower machine than the run had: more than two workers can bring, and said so.
    fast = measured(wall=8.0, costs=COSTS, batches=400)
    assert fast.speedup_estimate == pytest.approx(2.5)
    assert fast.ceiling == pytest.approx(1.375)
    assert "estimated speed-up over a sequential run: 2.50x" in fast.text()


def test_costs_that_were_wrong_do_not_move_the_ceiling() -> None:
    """Guards a fault: what was called a ceiling came from times before the run, and was exceeded."""
    found = measured(wall=8.0, costs=[("a", 1.0), ("b", 1e-9), ("c", 1e-9)])
    assert found.ceiling == pytest.approx(1.375)
    assert found.at_work == pytest.approx(1.375)


def test_there_cannot_be_more_at_work_than_there_are_workers() -> None:
    alone = measured([used("cpu:0", {"a": 3.0, "b": 3.0, "c": 3.0})], 9.0, costs=COSTS)
    assert (alone.ceiling, alone.utilization) == (1.0, 100.0)
    assert len(alone.text().splitlines()) == 2 + 4 + 1, "one worker has no speed-up to speak of"


def test_the_text_is_two_aligned_tables_and_three_sentences() -> None:
    assert measured(costs=COSTS).text().splitlines() == [
        "worker  busy  idle  waits for data  copies  ran",
        "cpu:0   60 %  25 %  10 %            5 %     a 100 %",
        "cpu:1   50 %  50 %  0 %             0 %     a 40 %, b 40 %, c 20 %",
        "layer  share  ms per batch  ran on",
        "a      73 %   40            cpu:0 75 %, cpu:1 25 %",
        "b      18 %   20            cpu:1 100 %",
        "c      9 %    10            cpu:1 100 %",
        "utilization 55 %: 1.10 of 2 workers at work on average; the ceiling for these workers and layers is 1.38",
        "estimated speed-up over a sequential run: 1.00x, by the layers' costs that were measured before the run",
        "advice: a is 73 % of the work: more than two workers cannot help; make it smaller or divide it",
    ]


def test_of_many_layers_the_text_names_those_that_took_the_most() -> None:
    places = {name: torch.device("cpu") for name in "abcdef"}
    row = used("cpu:0", {"a": 3.0, "b": 1.0, "c": 2.0, "d": 1.5, "e": 0.5, "f": 2.0}, "abcdef")
    assert "a 30 %, c 20 %, d 15 %, f 20 %, 2 more" in measured([row], places=places).text()


def test_json_holds_rounded_figures() -> None:
    found = measured(wall=9.0, costs=COSTS, schedule="al-fm").to_json()
    assert found["devices"][1] == {
        "device": "cpu:1",
        "layers": ["a", "b", "c"],
        "busy": 55.56,
        "idle": 44.44,
        "data": 0.0,
        "copy": 0.0,
        "ran": {"a": 40.0, "b": 40.0, "c": 20.0},
    }
    assert found["layers"][0] == {
        "layer": "a",
        "share": 72.73,
        "ms_per_batch": 40.0,
        "workers": {"cpu:0": 75.0, "cpu:1": 25.0},
    }
    assert (found["utilization"], found["at_work"], found["ceiling"]) == (61.11, 1.2222, 1.375)
    assert (found["speedup_estimate"], found["bottleneck"]) == (1.1111, "a")
    assert found["advice"].startswith("advice: every layer waits for the others")
    assert measured().to_json()["speedup_estimate"] is None


def test_a_run_in_which_nothing_happened_divides_by_nothing() -> None:
    found = measured([used("cpu:0", {}), used("cpu:1", {})], 0.0, batches=0)
    assert [row.busy for row in found.rows] == [0.0, 0.0]
    assert (found.at_work, found.ceiling) == (0.0, 2.0)
    assert found.text().splitlines()[-1] == "advice: nothing was trained, so nothing is known of the layers"


@pytest.mark.parametrize(
    ("schedule", "cores", "words"),
    [
        ("sequential", 2, "one worker does everything in turn; --schedule continuous lets the layers work at the same"),
        ("sequential", 1, "one worker does everything in turn, on the one core that there is"),
        ("al-fm", 2, "every layer waits for the others at every batch; --schedule continuous does not"),
    ],
)
def test_the_other_schedules_have_a_sentence_of_their_own(schedule: str, cores: int, words: str) -> None:
    found = measured([used("cpu", {"a": 6.0, "b": 2.0, "c": 1.0})], schedule=schedule, cores=cores)
    assert found.advice.startswith(f"advice: {words}")
    assert found.text().splitlines()[-1] == found.advice


def test_of_processes_the_advice_names_who_sets_the_pace_and_first_whether_they_share_cores() -> None:
    usages = [used("rank0 cpu:0", {"a": 9.0}, "a"), used("rank1 cpu:0", {"b": 4.0, "c": 1.0}, "bc")]
    ranks = [RankReport(0, "one", ["a"], 8, 16, {}), RankReport(1, "one", ["b", "c"], 8, 16, {})]
    words = "advice: rank0, with a, was at work 90 % of the time and sets the pace"
    assert measured(usages, ranks=ranks).advice.startswith(words)
    crowded = [replace(rank, cores=0.5) for rank in ranks]
    assert measured(usages, ranks=crowded).advice == (
        "advice: the processes on one share its cores, 0.50 for each; more of them than there are cores bring nothing"
    )
    on_gpus = [replace(usage, device=usage.device.replace("cpu", "cuda")) for usage in usages]
    assert measured(on_gpus, ranks=crowded).advice.startswith(words)


@given(
    st.lists(st.sampled_from([{0, 1, 2}, {0, 1, 2}, {0}, {1}]), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(1e-3, 1.0)), min_size=1, max_size=60),
    st.floats(0.0, 5.0),
)
def test_no_run_that_can_happen_exceeds_its_ceiling(
    able: list[set[int]], tasks: list[tuple[int, int, float]], drain: float
) -> None:
    """Any worker takes any layer that it may run, as long as a worker has one task and a layer one batch at a time.

    A layer is tied to a worker, or all may run it.
    """
    layer_free, worker_free = [0.0] * 4, [0.0] * 3
    names = "abcd"
    usages = [Usage(f"cpu:{n}", [name for name, who in zip(names, able, strict=True) if n in who]) for n in range(3)]
    for layer, number, seconds in tasks:
        worker = sorted(able[layer])[number % len(able[layer])]
        end = max(layer_free[layer], worker_free[worker]) + seconds
        layer_free[layer] = worker_free[worker] = end
        usages[worker].add(names[layer], busy=seconds, copy=0.0, idle=0.0, no_data=0.0)
    places = {name: torch.device("cpu") for name in names}
    found = measured(usages, max(worker_free) + drain, places=places, batches=1)
    assert 0.0 < found.at_work <= found.ceiling * (1 + 1e-9)
    assert 1.0 - 1e-9 <= found.ceiling <= 3.0 + 1e-9
    assert found.utilization <= 100.0 + 1e-9
