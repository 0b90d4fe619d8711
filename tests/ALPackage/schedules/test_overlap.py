"""The schedules are really at work at the same time: work that overlaps where it should, and no barrier in continuous.

Delays are put into the layers, so that these tests cannot pass by being serial.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from ALPackage import make_schedule, set_device
from ALPackage.schedules.continuous import QUEUE_DEPTH
from ALPackage.stage.trace import Span, Trace

from ..hooked import ALL, SEED, assert_equal, delay, hooked, nothing, pairs, plain, rate, snapshot, train, workers


def work(trace: Trace, layer: str, batch: int) -> list[Span]:
    """Return the spans of a layer on a batch, in order."""
    return sorted((s for s in trace.spans if (s.layer, s.batch) == (layer, batch)), key=lambda s: s.start)


def overlap(spans: list[Span]) -> float:
    """Return the seconds during which at least two different layers were at work."""
    times = sorted({time for span in spans for time in (span.start, span.stop)})
    return sum(
        stop - start
        for start, stop in pairwise(times)
        if len({span.layer for span in spans if span.start <= start and stop <= span.stop}) >= 2
    )


def meet(one: Span, other: Span) -> bool:
    """Tell whether two spans have an instant in common."""
    return one.start < other.stop and other.start < one.stop


@pytest.mark.parametrize("schedule", ALL)
def test_with_delays_the_numbers_are_equal_and_the_work_overlaps_as_it_should(schedule: str) -> None:
    count = 12
    stack, trace = hooked(delay), Trace()
    train(schedule, stack, pairs(count), trace=trace, **({"workers": 3} if schedule == "continuous" else {}))
    assert_equal(snapshot(stack), plain(count))
    trace.spans = [span for span in trace.spans if span.work]
    assert len(trace.spans) == 2 * 3 * count
    first, last = stack.names[0], stack.names[-1]
    # A barrier between batches: nothing of batch t + 1 begins before everything of batch t has ended.
    barriers = [
        max(s.stop for s in trace.spans if s.batch == t) <= min(s.start for s in trace.spans if s.batch == t + 1)
        for t in range(count - 1)
    ]
    neighbors = [
        (one, other)
        for one in trace.spans
        for other in trace.spans
        if one.layer != other.layer and one.batch + 1 == other.batch and meet(one, other)
    ]
    if schedule == "sequential":
        assert overlap(trace.spans) == 0.0
        assert all(barriers)
    elif schedule == "al-fm":
        assert overlap(trace.spans) > 0.01
        assert all(barriers), "al-fm joins every layer at the end of a batch"
        assert not neighbors
    else:
        assert overlap(trace.spans) > 0.01
        assert neighbors, "no layer was ever at work on a batch while another was on the next"
        early = [work(trace, first, t + 1)[0].start < work(trace, last, t)[-1].stop for t in range(count - 1)]
        assert sum(early) > count // 2, "layer 1 waited for the last layer at the end of a batch"
    for a, b in ((s, other) for s in trace.spans for other in trace.spans if s is not other and s.layer == other.layer):
        assert not meet(a, b), "a layer worked on two batches at once"


def test_continuous_has_no_barrier() -> None:
    """Guards a bug: every layer was joined at the end of every batch.

    The last layer does not finish batch t until the first has begun batch t + 1: with a barrier it would wait in
    vain. No timing is involved.
    """
    count = 8
    begun = [threading.Event() for _ in range(count)]
    waited: list[bool] = []

    def hook(layer: int, batch: int, phase: str) -> None:
        if layer == 0 and phase == "forward":
            begun[batch].set()
        if layer == 2 and phase == "backward" and batch + 1 < count:
            waited.append(begun[batch + 1].wait(3.0))
            assert waited[-1], "the first layer waited for the last one"

    stack = hooked(hook)
    train("continuous", stack, pairs(count), workers=3)
    assert waited == [True] * (count - 1)
    assert_equal(snapshot(stack), plain(count))


def test_al_fm_runs_backward_while_the_next_layer_runs_forward_and_joins_per_batch() -> None:
    count = 6
    forward = {(layer, batch): threading.Event() for layer in range(3) for batch in range(count)}
    waited: list[bool] = []
    ended: list[list[int]] = [[] for _ in range(count)]

    def hook(layer: int, batch: int, phase: str) -> None:
        if phase == "forward":
            forward[layer, batch].set()
            assert batch == 0 or len(ended[batch - 1]) == 3, "a forward pass began before the last batch was joined"
            return
        if layer < 2:
            waited.append(forward[layer + 1, batch].wait(3.0))
        ended[batch].append(layer)

    stack = hooked(hook)
    train("al-fm", stack, pairs(count))
    assert waited == [True] * (2 * count)
    assert_equal(snapshot(stack), plain(count))


def test_in_continuous_one_thread_does_all_of_a_layers_work_on_a_batch() -> None:
    """Guards a bug: a new thread per layer and batch, and all forward passes on the main thread."""
    seen: dict[tuple[int, int], set[int]] = {}

    def hook(layer: int, batch: int, phase: str) -> None:
        seen.setdefault((layer, batch), set()).add(threading.get_ident())
        time.sleep(0.001)

    train("continuous", hooked(hook), pairs(), workers=2)
    assert all(len(threads) == 1 for threads in seen.values())
    assert len(set.union(*seen.values())) == 2
    assert threading.get_ident() not in set.union(*seen.values())


def test_a_layer_stays_where_it_was_while_it_can() -> None:
    """Its weights are in that core's cache. Ten of the twelve batches of two equal layers, or more."""
    seen: dict[int, list[int]] = {0: [], 1: []}

    def hook(layer: int, batch: int, phase: str) -> None:
        if phase == "forward":
            seen[layer].append(threading.get_ident())
        time.sleep(0.004)

    train("continuous", hooked(hook, layers=2), pairs(), workers=2)
    moves = sum(one != other for threads in seen.values() for one, other in pairwise(threads))
    assert moves <= 2


@pytest.mark.parametrize(("layers", "workers_"), [(4, 2), (4, 3), (3, 3), (5, 2)])
def test_no_worker_is_idle_while_a_layer_is_ready(layers: int, workers_: int) -> None:
    """From the trace: at how many moments was a worker idle although a layer had its batch, its turn and its room?"""
    count, trace = 12, Trace()

    def hook(layer: int, batch: int, phase: str) -> None:
        time.sleep(0.002 * (1 + (layer + batch) % 3))

    stack = hooked(hook, layers=layers)
    train("continuous", stack, pairs(count), workers=workers_, trace=trace)
    at = {(span.layer, span.batch, span.phase): span for span in trace.spans if span.work}
    begins = [[at[name, t, "forward"].start for t in range(count)] for name in stack.names]
    handed_on = [[at[name, t, "forward"].stop for t in range(count)] for name in stack.names]
    ends = [[at[name, t, "backward"].stop for t in range(count)] for name in stack.names]

    def before(times: list[float], moment: float) -> int:
        return sum(time <= moment for time in times)

    def ready(layer: int, moment: float) -> bool:
        begun = before(begins[layer], moment)
        # The caller is quick: the first layer has its next batch at once.
        there = count if layer == 0 else before(handed_on[layer - 1], moment)
        waiting = 0 if layer + 1 == layers else before(handed_on[layer], moment) - before(begins[layer + 1], moment)
        return begun < there and begun == before(ends[layer], moment) and waiting < QUEUE_DEPTH

    first, last = min(map(min, begins)), max(map(max, ends))
    moments = [first + (last - first) * part / 1000 for part in range(1001)]
    lazy = [
        moment
        for moment in moments
        if sum(before(begins[one], moment) - before(ends[one], moment) for one in range(layers)) < workers_
        and any(ready(one, moment) for one in range(layers))
    ]
    # What it takes to wake a thread, and to be woken on a busy machine.
    assert len(lazy) < 0.2 * len(moments), f"{len(lazy) / 10:.0f} % of the time"


def test_the_loader_is_read_only_a_bounded_number_of_batches_ahead() -> None:
    drawn = 0
    seen: list[int] = []

    def loader() -> Iterator[tuple[Any, Any]]:
        nonlocal drawn
        for pair in pairs(30):
            drawn += 1
            yield pair

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (2, 0, "forward"):
            time.sleep(0.3)
            seen.append(drawn)

    stack = hooked(hook)
    with make_schedule("continuous", stack, threads=1, seed=SEED, workers=4) as one:
        list(one.run(loader(), lr=rate))
    # Each of three layers is at work on a batch and has QUEUE_DEPTH waiting; the caller holds one more.
    assert 3 < seen[0] <= 3 * (1 + QUEUE_DEPTH) + 1
    assert_equal(snapshot(stack), plain(30))


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (["cpu:0", "cpu:0", "cpu:1"], [["layer_1", "layer_2"], ["layer_3"]]),
        (["cpu:0", "cpu:1", "cpu:0"], [["layer_1", "layer_3"], ["layer_2"]]),
        (["cpu:2"] * 3, [["layer_1", "layer_2", "layer_3"]]),
        (["cpu"] * 3, [["layer_1", "layer_2", "layer_3"]] * 2),
        (["cpu", "cpu:1", "cpu"], [["layer_1", "layer_3"], ["layer_1", "layer_2", "layer_3"]]),
    ],
)
def test_a_layer_runs_only_where_it_was_placed(devices: list[str], expected: list[list[str]]) -> None:
    """Guards a bug: "cpu:K" meant nothing after `set_device`; every layer got a worker of its own."""
    ran: dict[str, set[str]] = {}

    def hook(layer: int, batch: int, phase: str) -> None:
        ran.setdefault(threading.current_thread().name, set()).add(f"layer_{layer + 1}")

    stack = hooked(hook)
    set_device(stack, devices)
    count = len(expected) if "cpu" in devices else None
    with make_schedule("continuous", stack, threads=1, seed=SEED, workers=count) as one:
        assert [usage.layers for usage in one.usage()] == expected
        assert len(workers()) == len(expected)
        list(one.run(pairs(4), lr=rate))
        assert all(one <= set(expected[int(name.removeprefix("al-worker-"))]) for name, one in ran.items())
    assert_equal(snapshot(stack), plain(4))


def test_every_other_device_has_workers_of_its_own() -> None:
    stack = hooked(nothing, layers=5)
    for layer, device in zip(stack, ("cpu", "cpu", "meta", "meta", "meta"), strict=True):
        layer.to(device)
    with make_schedule("continuous", stack, threads=1, workers=1, streams_per_device=2):
        assert len(workers()) == 1 + 2
    assert not workers()


@pytest.mark.parametrize("schedule", ALL)
def test_no_schedule_synchronizes_with_a_gpu(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: `torch.cuda.synchronize()` was called on machines without a GPU, and between batches."""

    def refuse(*_: Any) -> None:
        raise AssertionError("synchronized")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    train(schedule, hooked(nothing), pairs(2))
