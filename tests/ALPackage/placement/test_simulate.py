"""The simulator by hand, and against real runs whose layers sleep."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import make_schedule
from ALPackage.placement import simulate
from ALPackage.placement.cost import LayerCost
from ALPackage.placement.simulate import _Run
from ALPackage.stage.crew import Member, bound

from ..hooked import hooked, pairs


def costs(*times: tuple[float, float]) -> list[LayerCost]:
    """Return layers of (forward, backward) seconds."""
    return [LayerCost(str(number), forward, backward) for number, (forward, backward) in enumerate(times)]


def crew_of(*layers: tuple[int, ...], kind: str = "cuda") -> list[Member]:
    """Return workers with these layers, each on a device of its own."""
    return [Member(f"{kind}:{n}", torch.device(kind, n), own) for n, own in enumerate(layers)]


def test_by_hand() -> None:
    even = costs((1, 2), (1, 2))
    assert simulate("sequential", even, 1, 5) == 30
    # Layer 1 goes forward in 1, its 2 of backward beside layer 2's 1 and 2: done at 4.
    assert simulate("al-fm", even, 2, 5) == 20
    # The second worker begins when the first has gone forward, at 1, and then never waits.
    assert simulate("continuous", even, 2, 5) == 1 + 5 * 3
    assert simulate("continuous", even, crew_of((0,), (1,)), 5) == 1 + 5 * 3
    assert simulate("continuous", even, 1, 5) == 30


def test_workers_that_share_layers_beat_every_cut_of_them() -> None:
    layers = costs((1, 0), (1, 0), (1, 0))
    # Cut, one worker has two layers of 1 s. Shared, the two workers have 3 s per batch between them.
    assert simulate("continuous", layers, crew_of((0,), (1, 2)), 15) == 1 + 2 * 15
    assert 1.5 * 15 < simulate("continuous", layers, 2, 15) <= 1.5 * 15 + 1.5


def test_a_worker_takes_the_first_layer_of_those_that_it_ran_last() -> None:
    run = _Run(costs((1, 0), (1, 0), (1, 0)), crew_of((0, 1, 2), (0, 1, 2)), 9, 2, 0.0, 0.0, 9.0)
    run.waiting = [1, 1, 1]
    run.ran = [0, 0, 1]
    assert (run._choice(0, own=True), run._choice(1, own=True)) == (0, 2)
    run.at_work[2] = True
    assert (run._choice(1, own=True), run._choice(1, own=False)) == (None, 0)
    run.waiting[1] = 2  # no room behind layer 0, so it is not ready
    assert run._choice(1, own=False) == 1


@pytest.mark.parametrize(
    "times",
    [(352, 312, 82, 28), (355, 300, 90, 30), (370, 300, 80, 28), (200, 259, 171, 134, 72), (12, 202, 281, 273)],
    ids=["VGG", "VGG again", "VGG once more", "ResNet", "LSTM"],
)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_two_workers_that_share_the_layers_are_hardly_ever_idle(times: tuple[int, ...], depth: int) -> None:
    """Measured costs. Where the deepest ready layer came first, VGG's queues ran empty: 0.88 to 0.92 of the bound."""
    layers = costs(*((time / 3, time * 2 / 3) for time in times))
    least = bound([cost.total for cost in layers], crew_of(tuple(range(len(times))), tuple(range(len(times)))))
    assert 300 * least / simulate("continuous", layers, 2, 300, depth=depth) > 0.99


def test_what_waits_before_a_layer_is_bounded() -> None:
    # Layer 1 takes 1 + 0, layer 2 takes 10: layer 1 is ahead by the batch in work and `depth` that wait.
    slow = costs((1, 0), (10, 0))
    apart = crew_of((0,), (1,))
    assert simulate("continuous", slow, apart, 4) == 1 + 40
    assert simulate("continuous", slow, apart, 4, depth=1) == 1 + 40
    # The first layer may be the last to be done: its backward pass of batch 2 ends at 30, layer 2 at 23.
    assert simulate("continuous", costs((1, 9), (1, 1)), apart, 3) == 30
    # Depth 1: layer 1 begins batch 1 only when batch 0 is taken from before layer 2, at 1, so it costs nothing here.
    assert simulate("continuous", costs((1, 1), (1, 9)), apart, 5, depth=1) == 1 + 50


def test_overhead_and_hand_overs_count_once_per_layer_and_batch() -> None:
    assert simulate("continuous", costs((1, 1), (1, 1)), 2, 2, overhead=0.5) == pytest.approx(1.5 + 2 * 2.5)
    received = [LayerCost("a", 1, 1, hand_over=3), LayerCost("b", 1, 1, hand_over=50)]
    assert simulate("continuous", received, crew_of((0,), (1,)), 2) == 1 + 2 * (3 + 2)
    assert simulate("continuous", received, crew_of((0, 1)), 2) == 8, "on one device nothing is copied"


def test_threads_share_the_cores_and_the_loader_is_one_of_them() -> None:
    even = costs((1, 1), (1, 1))
    # Two workers on one core: as one worker.
    assert simulate("continuous", even, 2, 5, at_once=1.0) == pytest.approx(20)
    # Each batch is loaded in 3 and trained in 2 + 2, beside it on cores of their own.
    assert simulate("continuous", even, 2, 5, loader=3.0) == pytest.approx(5 * 3 + 1 + 2)
    # All on one core: everything in turn.
    assert simulate("continuous", even, 2, 5, loader=3.0, at_once=1.0) == pytest.approx(5 * (3 + 4))
    # A GPU's worker needs no core.
    assert simulate("continuous", even, crew_of((0,), (1,)), 5, at_once=1.0) == 1 + 10
    assert simulate("sequential", even, 1, 5, loader=3.0) == 35
    assert simulate("al-fm", even, 2, 5, loader=3.0, at_once=1.0) == 35


TIMES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)
ABLE = st.lists(st.sets(st.integers(0, 4)), max_size=3)


@given(TIMES, st.integers(1, 12), st.integers(1, 3), ABLE)
def test_bounds_that_hold_for_every_run(
    times: list[tuple[int, int]], batches: int, depth: int, others: list[set[int]]
) -> None:
    layers = costs(*times)
    every = range(len(layers))
    members = crew_of(tuple(every), *(tuple(layer for layer in every if layer in able) for able in others), kind="cpu")
    alone = simulate("sequential", layers, 1, batches)
    shared = simulate("continuous", layers, members, batches, depth=depth)
    least = bound([cost.total for cost in layers], members)
    assert least * batches <= shared + 1e-9
    assert shared <= alone + 1e-9
    assert simulate("al-fm", layers, members, batches) <= alone


@pytest.mark.parametrize(("schedule", "workers"), [("al-fm", 3), ("continuous", 3), ("continuous", 2)])
def test_real_runs_of_sleeping_layers_take_as_long(schedule: str, workers: int) -> None:
    times, batches = [(0.004, 0.008), (0.008, 0.012), (0.002, 0.004)], 10

    def sleep(layer: int, batch: int, phase: str) -> None:
        time.sleep(times[layer][phase == "backward"])

    def seconds(name: str, **options: int) -> float:
        with make_schedule(name, hooked(sleep), threads=1, **options) as one:
            start = time.monotonic()
            list(one.run(pairs(batches)))
            return time.monotonic() - start

    expected = simulate(schedule, costs(*times), workers, batches)
    found = []
    for _ in range(4):
        # On a busy machine every step takes longer: by how much, a sequential run at the same time says.
        slower = max(1.0, seconds("sequential") / simulate("sequential", costs(*times), 1, batches))
        found.append(seconds(schedule, **({"workers": workers} if schedule == "continuous" else {})))
        assert found[-1] >= 0.95 * expected
        if found[-1] < 1.4 * slower * expected + 0.2:
            return
    pytest.fail(f"simulated {expected:.3f} s, took {found} s")


@pytest.mark.parametrize(("schedule", "workers"), [("fifo", 2), ("continuous", crew_of((0,))), ("continuous", 0)])
def test_what_makes_no_sense_is_refused(schedule: str, workers: Any) -> None:
    with pytest.raises(ValueError, match="simulate: "):
        simulate(schedule, costs((1, 1), (1, 1)), workers, 3)
