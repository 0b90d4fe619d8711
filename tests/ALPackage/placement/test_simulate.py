"""The simulator by hand, and against real runs whose stages sleep."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage import make_schedule
from ALPackage.placement import simulate
from ALPackage.placement.cost import LayerCost

from ..hooked import hooked, pairs


def costs(*times: tuple[float, float]) -> list[LayerCost]:
    """Return layers of (forward, backward) seconds."""
    return [LayerCost(str(number), forward, backward) for number, (forward, backward) in enumerate(times)]


def test_by_hand() -> None:
    even = costs((1, 2), (1, 2))
    assert simulate("sequential", even, [2], 5) == 30
    # Layer 1 goes forward in 1, its 2 of backward beside layer 2's 1 and 2: done at 4.
    assert simulate("al-fm", even, [1, 1], 5) == 20
    # The second stage begins when the first has gone forward, at 1, and then never waits.
    assert simulate("continuous", even, [1, 1], 5) == 1 + 5 * 3
    assert simulate("continuous", even, [2], 5) == 30


def test_a_full_channel_holds_a_fast_stage_back() -> None:
    # Stage 1 takes 1 + 0, stage 2 takes 10: stage 1 is ahead by the batch in work and `depth` that wait.
    slow = costs((1, 0), (10, 0))
    assert simulate("continuous", slow, [1, 1], 4) == 1 + 40
    assert simulate("continuous", slow, [1, 1], 4, depth=1) == 1 + 40
    # The first stage may be the last to be done: its backward pass of batch 2 ends at 30, stage 2 at 23.
    assert simulate("continuous", costs((1, 9), (1, 1)), [1, 1], 3) == 30
    # No place at the turn: the first stage does its backward pass, and then waits for the second to take a batch.
    assert simulate("continuous", costs((1, 1), (1, 9)), [1, 1], 5, depth=1) == 1 + 50


def test_overhead_counts_once_per_stage_and_batch() -> None:
    assert simulate("continuous", costs((1, 1), (1, 1)), [1, 1], 2, overhead=0.5) == pytest.approx(1.5 + 2 * 2.5)


TIMES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)


@given(TIMES, st.integers(1, 12), st.integers(1, 3), st.data())
def test_bounds_that_hold_for_every_run(
    times: list[tuple[int, int]], batches: int, depth: int, data: st.DataObject
) -> None:
    layers = costs(*times)
    sizes: list[int] = []
    while sum(sizes) < len(layers):
        sizes.append(data.draw(st.integers(1, len(layers) - sum(sizes))))
    alone = simulate("sequential", layers, [len(layers)], batches)
    piped = simulate("continuous", layers, sizes, batches, depth=depth)
    stages = [sum(sum(pair) for pair in times[sum(sizes[:s]) : sum(sizes[: s + 1])]) for s in range(len(sizes))]
    assert max(stages) * batches <= piped <= alone
    assert piped <= max(stages) * batches + alone / batches
    assert simulate("al-fm", layers, sizes, batches) <= alone
    if depth > 1:
        assert piped <= simulate("continuous", layers, sizes, batches, depth=depth - 1)


@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [("sequential", [3]), ("al-fm", [1, 1, 1]), ("continuous", [1, 1, 1]), ("continuous", [1, 2]), ("continuous", [3])],
)
def test_real_runs_of_sleeping_stages_take_as_long(schedule: str, sizes: list[int]) -> None:
    times, batches = [(0.004, 0.008), (0.008, 0.012), (0.002, 0.004)], 15

    def sleep(layer: int, batch: int, phase: str) -> None:
        time.sleep(times[layer][phase == "backward"])

    expected = simulate(schedule, costs(*times), sizes, batches)
    options = {"stages": sizes} if schedule == "continuous" else {}
    seconds = []
    with make_schedule(schedule, hooked(sleep), threads=1, **options) as one:
        for _ in range(4):  # other work on the machine only ever adds time
            start = time.monotonic()
            list(one.run(pairs(batches)))
            seconds.append(time.monotonic() - start)
            if seconds[-1] < 1.4 * expected + 0.2:
                break
    assert expected <= min(seconds) < 1.4 * expected + 0.2, f"simulated {expected:.3f} s, took {min(seconds):.3f} s"


@pytest.mark.parametrize(("schedule", "sizes"), [("fifo", [2]), ("continuous", [1]), ("continuous", [1, 2])])
def test_what_makes_no_sense_is_refused(schedule: str, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="simulate: "):
        simulate(schedule, costs((1, 1), (1, 1)), sizes, 3)
