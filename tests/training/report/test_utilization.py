"""Utilization, its ceiling, the estimated speed-up and the advice, by hand."""

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


def timed(device: str, **layers: float) -> Usage:
    """Return the usage of a worker that says how long each layer took."""
    return Usage(device, list(layers), busy=sum(layers.values()), layer_busy=dict(layers))


TWO = [used("cpu:0", "a", 6.0, wait_input=1.0, wait_space=2.0, copy=0.5), timed("cpu:1", b=2.0, c=1.0)]
TWO[1].wait_input = 0.3


def test_shares_are_in_percent_of_the_training_time() -> None:
    rows = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous").rows
    assert [(row.device, row.layers) for row in rows] == [("cpu:0", ["a"]), ("cpu:1", ["b", "c"])]
    first, second = rows
    assert (first.busy, first.wait_input, first.wait_space, first.copy) == pytest.approx((60, 10, 20, 5))
    assert (second.busy, second.wait_input, second.wait_space, second.copy) == pytest.approx((30, 3, 0, 0))


def test_utilization_and_its_ceiling_follow_from_the_times_inside_the_run() -> None:
    found = measure_utilization(TWO, 10.0, costs=None, batches=250, schedule="continuous")
    assert found.at_work == pytest.approx(0.9)
    assert found.utilization == pytest.approx(45.0)
    assert found.ceiling == pytest.approx(9.0 / 6.0)
    assert found.bottleneck == "a"
    assert found.speedup_estimate is None
    assert "estimated" not in found.text()


def test_the_speed_up_is_an_estimate_from_the_costs_before_the_run_and_is_not_clamped() -> None:
    found = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous")
    assert found.speedup_estimate == pytest.approx(250 * 0.050 / 10.0)
    # The costs were measured on a slower machine than the run had: more than two workers can bring, and said so.
    fast = measure_utilization(TWO, 5.0, costs=COSTS, batches=250, schedule="continuous")
    assert fast.speedup_estimate == pytest.approx(2.5)
    assert fast.ceiling == pytest.approx(1.5)
    assert "estimated speed-up over a sequential run: 2.50x" in fast.text()


def test_costs_that_were_wrong_do_not_move_the_ceiling() -> None:
    """Guards a fault: what was called a ceiling came from times before the run, and was exceeded."""
    wrong = [("a", 1.0), ("b", 1e-9), ("c", 1e-9)]
    found = measure_utilization(TWO, 6.0, costs=wrong, batches=250, schedule="continuous")
    assert found.ceiling == pytest.approx(1.5)
    assert found.at_work == pytest.approx(1.5)


def test_a_layer_that_several_workers_run_is_one_layer() -> None:
    found = measure_utilization(
        [timed("cpu:0", a=3.0, b=1.0), timed("cpu:1", a=3.0, b=2.0)], 6.0, costs=None, batches=9, schedule="continuous"
    )
    assert found.bottleneck == "a"
    assert found.ceiling == pytest.approx(9.0 / 6.0)
    assert found.at_work == pytest.approx(1.5)


def test_there_cannot_be_more_at_work_than_there_are_workers() -> None:
    alone = measure_utilization(
        [timed("cpu:0", a=3.0, b=3.0, c=3.0)], 9.0, costs=COSTS, batches=9, schedule="continuous"
    )
    assert (alone.ceiling, alone.utilization) == (1.0, 100.0)
    assert len(alone.text().splitlines()) == 1 + 1 + 1, "one worker has no speed-up to speak of"


def test_the_text_is_an_aligned_table_and_three_sentences() -> None:
    found = measure_utilization(TWO, 10.0, costs=COSTS, batches=250, schedule="continuous")
    assert found.text().splitlines() == [
        "device  busy  waits for input  waits for space  copies  layers",
        "cpu:0   60 %  10 %             20 %             5 %     a",
        "cpu:1   30 %  3 %              0 %              0 %     b c",
        "utilization 45 %: 0.90 of 2 workers at work on average, of a ceiling of 1.50; most time went into a",
        "estimated speed-up over a sequential run: 1.25x, by the layers' costs that were measured before the run",
        "advice: the busiest worker, cpu:0, is busy only 60 % of the time; "
        "train on more batches per epoch, so that filling and draining weigh less, or on larger ones",
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
    assert (found["utilization"], found["at_work"], found["ceiling"]) == (50.0, 1.0, 1.5)
    assert (found["speedup_estimate"], found["bottleneck"]) == (1.3889, "a")
    assert found["advice"].startswith("advice: every layer waits for the others")
    bare = measure_utilization(TWO, 9.0, costs=None, batches=250, schedule="al-fm").to_json()
    assert bare["speedup_estimate"] is None


def test_a_run_in_which_nothing_happened_divides_by_nothing() -> None:
    idle = [used("cpu:0", "a", 0.0), used("cpu:1", "b c", 0.0)]
    found = measure_utilization(idle, 0.0, costs=None, batches=0, schedule="continuous")
    assert [row.busy for row in found.rows] == [0.0, 0.0]
    assert (found.at_work, found.ceiling) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("schedule", "usages", "at_once", "words"),
    [
        ("sequential", TWO, 9, "one worker does everything in turn; --schedule continuous"),
        ("al-fm", TWO, 9, "every layer waits for the others at every batch"),
        (
            "continuous",
            [used("cpu:0", "a", 5.0, wait_input=1.6), TWO[1]],
            9,
            "the first stage waits 16 % of its time for data",
        ),
        ("continuous", [timed("cpu:0", a=3.0, b=3.0)], 9, "one stage does everything; more devices, or --workers"),
        (
            "continuous",
            [used("cuda:0", "a", 5.0, wait_input=1.5, copy=2.0), TWO[1]],
            9,
            "cuda:0 copies 20 % of its time; cut the layers where less is handed on",
        ),
        ("continuous", [timed("cpu:0", a=9.1), TWO[1]], 9, "a alone sets the pace; make it cheaper or divide it"),
        ("continuous", [timed("cpu:0", a=4.0), timed("cpu:1", b=5.0)], 1, "2 workers share the cores"),
        (
            "continuous",
            [timed("cuda:0", a=3.0), timed("cuda:1", b=5.0, c=4.5)],
            9,
            "cuda:1 sets the pace with b, c; another worker or device could take some of them",
        ),
        ("continuous", [timed("cpu:0", a=8.0), TWO[1]], 9, "worker, cpu:0, is busy only 80 % of the time"),
        (
            "continuous",
            [timed("cpu:0", a=5.0, b=4.5), timed("cpu:1", c=5.0, d=4.0)],
            9,
            "the workers are balanced and busy",
        ),
    ],
)
def test_advice_names_what_holds_the_run_back(schedule: str, usages: list[Usage], at_once: float, words: str) -> None:
    found = measure_utilization(usages, 10.0, costs=COSTS, batches=100, schedule=schedule, at_once=at_once)
    assert found.advice.startswith("advice: ")
    assert words in found.advice
    assert found.text().splitlines()[-1] == found.advice


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(1e-3, 1.0)), min_size=1, max_size=60),
    st.floats(0.0, 5.0),
)
def test_no_run_that_can_happen_exceeds_its_ceiling(tasks: list[tuple[int, int, float]], drain: float) -> None:
    """Any worker takes any layer, as long as a worker has one task and a layer one batch at a time."""
    layer_free, worker_free = [0.0] * 4, [0.0] * 3
    usages = [Usage(f"cpu:{number}", list("abcd")) for number in range(3)]
    for layer, worker, seconds in tasks:
        end = max(layer_free[layer], worker_free[worker]) + seconds
        layer_free[layer] = worker_free[worker] = end
        usages[worker].busy += seconds
        times = usages[worker].layer_busy
        times["abcd"[layer]] = times.get("abcd"[layer], 0.0) + seconds
    found = measure_utilization(usages, max(worker_free) + drain, costs=None, batches=1, schedule="continuous")
    assert 0.0 < found.at_work <= found.ceiling * (1 + 1e-9)
    assert 1.0 - 1e-9 <= found.ceiling <= 3.0 + 1e-9
    assert found.utilization <= 100.0 + 1e-9
