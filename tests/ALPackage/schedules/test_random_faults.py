"""Five hundred small runs with random delays, faults and early ends: right numbers or the right error, and no hang."""

from __future__ import annotations

import faulthandler
import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ALPackage import ALStack, Schedule, StageError, make_schedule

from ..hooked import (
    SEED,
    Broken,
    assert_equal,
    crew_of,
    hooked,
    losses_of,
    nothing,
    pairs,
    rate,
    snapshot,
    steps,
    workers,
)


@pytest.fixture(scope="module", autouse=True)
def few_objects() -> Iterator[None]:
    """Have the garbage collector leave alone what was there before: looking through it takes longer than the runs."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


RUNS = 500
#: Seconds after which one small run counts as hung.
HUNG = 20.0


def reference_losses(layers: int, count: int) -> tuple[list[Any], dict[str, Tensor]]:
    """Return what the sequential schedule makes of `count` batches."""
    stack = hooked(nothing, layers)
    with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
        return losses_of(list(one.run(pairs(count), lr=rate))), snapshot(stack)


class Plan:
    """What happens in one run, drawn from one number."""

    def __init__(self, number: int, schedule: str) -> None:
        draw = random.Random(number)
        self.schedule = schedule
        self.layers, self.count = draw.randint(2, 4), draw.randint(1, 8)
        self.options: dict[str, Any] = {}
        if schedule == "continuous":
            self.options = {"depth": draw.randint(1, 3)}
        self.workers = draw.randint(1, self.layers + 1)
        #: Who may run each layer.
        self.able = [draw.sample(range(self.workers), draw.randint(1, self.workers)) for _ in range(self.layers)]
        self.fault = draw.choice(["none", "forward", "backward", "update", "hook", "loader", "leave"])
        self.at = draw.randrange(self.layers), draw.randrange(self.count)
        self.pauses = {
            (layer, batch, phase): draw.random() * 0.004
            for layer in range(-1, self.layers)
            for batch in range(self.count)
            for phase in ("forward", "backward")
            if draw.random() < 0.25
        }
        self.drawn = 0
        self.failed: float | None = None

    def stack(self) -> ALStack:
        """Return a stack that fails as planned."""
        stack = hooked(self.hook, self.layers)
        layer = stack[self.at[0]]
        if self.fault == "update":
            update, calls = layer.update, iter(range(self.count))

            def broken() -> None:
                self.fail(next(calls) == self.at[1])
                update()

            layer.update = broken  # type: ignore[method-assign]
        if self.fault == "hook":
            number = iter(range(self.count))
            layer.enc.register_forward_hook(lambda *_: self.fail(next(number) == self.at[1]))
        return stack

    def fail(self, now: bool) -> None:
        if now:
            self.failed = time.monotonic()
            raise Broken("out of luck")

    def hook(self, layer: int, batch: int, phase: str) -> None:
        time.sleep(self.pauses.get((layer, batch, phase), 0.0))
        self.fail((*self.at, self.fault) == (layer, batch, phase))

    def loader(self) -> Iterator[Any]:
        for number, pair in enumerate(pairs(self.count)):
            time.sleep(self.pauses.get((-1, number, "forward"), 0.0))
            self.fail((self.fault, number) == ("loader", self.at[1]))
            self.drawn += 1
            yield pair


@pytest.fixture
def _watched() -> Iterator[None]:
    """End the process with the stacks of all threads where a run hangs."""
    faulthandler.dump_traceback_later(5 * HUNG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("_watched", "unchecked")
@pytest.mark.parametrize("part", range(5))
def test_random_delays_and_faults(part: int) -> None:
    expected: dict[tuple[int, int], Any] = {}
    for number in range(part * RUNS // 5, (part + 1) * RUNS // 5):
        plan = Plan(number, "al-fm" if number % 5 == 0 else "continuous")
        key = plan.layers, plan.count
        expected[key] = expected.get(key) or reference_losses(*key)
        losses, state = expected[key]
        stack, found = plan.stack(), []
        start, failure = time.monotonic(), None
        try:
            with (
                crew_of(plan.workers, plan.able),
                make_schedule(plan.schedule, stack, threads=1, seed=SEED, **plan.options) as one,
            ):
                for done, reported in enumerate(one.run(plan.loader(), lr=rate)):
                    found += losses_of([reported])
                    if plan.fault == "leave" and done == plan.at[1]:
                        break
        except StageError as error:
            failure = error.layer, error.batch, type(error.__cause__)
        place = "loader" if plan.fault == "loader" else f"layer_{plan.at[0] + 1}"
        told = None if plan.fault in ("none", "leave") else (place, plan.at[1], Broken)
        assert failure == told, f"run {number}"
        assert time.monotonic() - (plan.failed or start) < (2.0 if plan.failed else HUNG)
        assert found == losses[: len(found)], f"run {number}: other losses"
        assert not workers(), f"run {number}: threads left"
        assert all(parameter.grad is None for parameter in stack.parameters())
        if plan.fault == "none":
            assert len(found) == plan.count
            assert_equal(snapshot(stack), state)
        if plan.fault in ("leave", "loader"):
            assert steps(stack) == [{float(plan.drawn)}] * plan.layers, f"run {number}"


def tensors_alive() -> int:
    """Return the number of tensors in the process."""
    gc.collect()
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())


def fresh(count: int, kept: list[weakref.ref[Any]]) -> Iterator[Any]:
    """Make batches of which only weak references are kept."""
    for number in range(count):
        x, y = torch.full((5, 4), float(number)), torch.randn(5, 3)
        kept += [weakref.ref(x), weakref.ref(y)]
        yield x, y
        del x, y


def cut_short(batches: Iterator[Any], error: type[BaseException]) -> Iterator[Any]:
    """Yield four batches, then raise."""
    for _ in range(4):
        yield next(batches)
    raise error


def once(schedule: str, end: str, kept: list[weakref.ref[Any]]) -> None:
    """Run once, as `end` says, and drop everything."""

    def hook(layer: int, batch: int, phase: str) -> None:
        if end == phase and (layer, batch) == (1, 3):
            raise Broken
        if end == "abandoned":
            time.sleep(0.001)

    stack = hooked(hook)
    stack[0].enc.f.register_forward_hook(lambda module, args, out: kept.append(weakref.ref(out)))
    one: Schedule = make_schedule(schedule, stack, threads=1)
    try:
        if end == "predict":
            stack.eval()
            list(one.predict(x for x, _ in fresh(6, kept)))
            return
        data = fresh(8, kept)
        if end in ("loader", "interrupt"):
            data = cut_short(data, Broken if end == "loader" else KeyboardInterrupt)
        for number, _ in enumerate(one.run(data)):
            if end in ("leave", "abandoned") and number == 2:
                break
        assert end in ("end", "leave", "abandoned")
    except StageError:
        assert end in ("forward", "backward", "loader")
    except KeyboardInterrupt:
        assert end == "interrupt"
    finally:
        if end != "abandoned":
            one.close()


@pytest.mark.parametrize("end", ["end", "forward", "backward", "loader", "interrupt", "leave", "predict", "abandoned"])
@pytest.mark.parametrize("schedule", ["sequential", "al-fm", "continuous"])
def test_no_tensor_is_left(schedule: str, end: str) -> None:
    once(schedule, end, [])
    before, threads = tensors_alive(), threading.active_count()
    for _ in range(3):
        kept: list[weakref.ref[Any]] = []
        once(schedule, end, kept)
        deadline = time.monotonic() + 2.0
        while workers() and time.monotonic() < deadline:
            time.sleep(0.002)
        assert not workers()
        gc.collect()
        assert kept
        assert not any(one() is not None for one in kept), "a tensor of the run is alive"
    # A thread may leave the list of threads before it lets go of what its last frame holds.
    deadline = time.monotonic() + 2.0
    while tensors_alive() > before and time.monotonic() < deadline:
        gc.collect()
    assert tensors_alive() <= before
    assert threading.active_count() <= threads


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("schedule", ["al-fm", "continuous"])
def test_no_tensor_is_left_while_the_schedule_that_failed_is_kept(schedule: str, phase: str) -> None:
    """Once the exception is dropped, that is; what it holds shows where the failure was."""

    def hook(layer: int, batch: int, at: str) -> None:
        if (layer, batch, at) == (1, 3, phase):
            raise Broken

    kept: list[weakref.ref[Any]] = []
    one = make_schedule(schedule, hooked(hook), threads=1)
    try:
        list(one.run(fresh(8, kept)))
    except StageError:
        pass
    else:
        pytest.fail("the fault was lost")
    gc.collect()
    assert not any(ref() is not None for ref in kept), "a tensor of the run is alive"
    one.close()


def test_fifty_schedules_leave_as_many_threads_and_tensors_as_one() -> None:
    stack = hooked(nothing)

    def cycle() -> None:
        with make_schedule("continuous", stack, threads=1) as one:
            list(one.run(pairs(2)))

    cycle()
    before, threads = tensors_alive(), threading.active_count()
    for _ in range(50):
        cycle()
        assert threading.active_count() == threads
    assert tensors_alive() <= before
