"""A failure is raised in the caller with layer, batch and cause; nothing hangs, and what was left early is finished."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ALPackage import AL, Schedule, StageError, make_schedule
from ALPackage.schedules import continuous

from ..hooked import (
    ALL,
    SEED,
    Batches,
    Broken,
    assert_equal,
    break_at,
    delay,
    hooked,
    losses_of,
    nothing,
    pairs,
    plain,
    rate,
    snapshot,
    steps,
    workers,
)


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("schedule", ALL)
def test_a_failure_names_layer_and_batch_and_keeps_its_cause(schedule: str, layer: int, phase: str) -> None:
    """Guards a bug: errors in a thread were lost."""
    error = Broken("out of luck")
    stack = hooked(break_at(layer, 4, phase, error))
    start = time.monotonic()
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(StageError) as caught:
        list(one.run(pairs(20)))
    assert time.monotonic() - start < 2.0
    assert not workers()
    assert (caught.value.layer, caught.value.batch) == (f"layer_{layer + 1}", 4)
    assert str(caught.value) == f"layer 'layer_{layer + 1}' failed on batch 4: Broken: out of luck"
    assert isinstance(caught.value.__cause__, Broken)
    if phase == "forward":
        assert caught.value.__cause__ is error
    frames, traceback = [], caught.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "hook" in frames, "the original traceback was lost"


@pytest.mark.parametrize("schedule", ALL)
def test_a_failure_in_the_update_is_a_stage_error_too(schedule: str) -> None:
    class BrokenSGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise Broken

    stack = hooked(nothing, optimizer=BrokenSGD)
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(StageError) as caught:
        list(one.run(pairs(3), first=7))
    assert caught.value.batch == 7
    assert caught.value.layer in stack.names  # in al-fm the first in time
    assert isinstance(caught.value.__cause__, Broken)


def test_batches_are_numbered_from_first_in_a_failure() -> None:
    stack = hooked(break_at(1, 2, "forward", Broken()))
    with make_schedule("continuous", stack, threads=1) as one, pytest.raises(StageError) as caught:
        list(one.run(pairs(), first=100))
    assert caught.value.batch == 102


def test_even_an_exit_in_a_worker_is_raised_in_the_caller() -> None:
    stack = hooked(break_at(2, 1, "forward", SystemExit(3)))
    with make_schedule("continuous", stack, threads=1) as one, pytest.raises(StageError, match="SystemExit"):
        list(one.run(pairs()))


def test_a_worker_that_cannot_even_start_is_raised_in_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a GPU has no memory left for its context: the caller must not wait for a thread that is gone."""
    set_threads = torch.set_num_threads

    def fail_in_workers(count: int) -> None:
        if threading.current_thread().name.startswith("al-"):
            raise Broken("no context")
        set_threads(count)

    monkeypatch.setattr(torch, "set_num_threads", fail_in_workers)
    caught: list[BaseException] = []
    one = make_schedule("continuous", hooked(nothing), threads=1)

    def run() -> None:
        try:
            list(one.run(pairs()))
        except BaseException as error:
            caught.append(error)

    caller = threading.Thread(target=run, daemon=True)
    caller.start()
    caller.join(2.0)
    hung = caller.is_alive()
    one.close()
    caller.join(2.0)
    assert not hung
    assert isinstance(caught[0], RuntimeError)
    assert isinstance(caught[0].__cause__, Broken)


def test_a_run_after_a_failure_says_what_failed() -> None:
    stack = hooked(break_at(0, 1, "forward", Broken()))
    with make_schedule("continuous", stack, threads=1) as one:
        with pytest.raises(StageError, match="batch 1"):
            list(one.run(pairs()))
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"ended when layer 'layer_1' failed on batch 1.*make a new one"):
                list(one.run(pairs()))


@pytest.mark.parametrize("where", ["forward", "backward", "update"])
@pytest.mark.parametrize("schedule", ALL)
def test_a_stack_trains_on_after_a_failure(schedule: str, where: str) -> None:
    """No batch in flight and no half-made gradient may be left, which the next update would take for its own."""
    failing = True

    class Fragile(AL):
        def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
            out = super().forward(x, y)
            if failing and where == "forward" and self is stack[1]:
                raise Broken
            return out

        def backward(self) -> None:
            if failing and where == "backward" and self is stack[1]:
                raise Broken
            super().backward()

        def update(self) -> None:
            if failing and where == "update" and self is stack[1]:
                raise Broken
            super().update()

    stack = hooked(nothing, kind=Fragile)
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(StageError):
        list(one.run(pairs(1)))
    assert all(parameter.grad is None for parameter in stack.parameters()), "a gradient was left behind"
    failing = False
    with make_schedule(schedule, stack, threads=1) as one:
        assert len(list(one.run(pairs(3)))) == 3


@pytest.mark.parametrize("at", [0, 5])
@pytest.mark.parametrize("schedule", ALL)
def test_a_failure_of_the_loader_names_the_batch_and_keeps_its_cause(schedule: str, at: int) -> None:
    error = Broken("bad file")

    def loader() -> Iterator[tuple[Any, Any]]:
        yield from pairs(at)
        raise error

    start = time.monotonic()
    with make_schedule(schedule, hooked(nothing), threads=1) as one, pytest.raises(StageError) as caught:
        list(one.run(loader()))
    assert (caught.value.layer, caught.value.batch) == ("loader", at)
    assert str(caught.value) == f"loader failed on batch {at}: Broken: bad file"
    assert caught.value.__cause__ is error
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("schedule", ALL)
def test_when_the_loader_fails_every_layer_has_taken_the_same_steps(schedule: str) -> None:
    def loader() -> Iterator[tuple[Any, Any]]:
        yield from pairs(6)
        raise Broken

    stack = hooked(delay)
    with (
        make_schedule(schedule, stack, threads=1, seed=SEED) as one,
        pytest.raises(StageError, match="loader failed on batch 6"),
    ):
        list(one.run(loader()))
    assert steps(stack) == [{6.0}] * 3


@pytest.mark.parametrize("schedule", ALL)
def test_what_the_rate_or_the_target_raises_comes_through_too(schedule: str) -> None:
    def broken(_: Any) -> Any:
        raise Broken

    with (
        make_schedule(schedule, hooked(nothing), threads=1) as one,
        pytest.raises(StageError, match="lr failed on batch 0"),
    ):
        list(one.run(pairs(), lr=broken))
    stack = hooked(nothing)
    stack.target = broken
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(StageError, match="target failed on batch 0"):
        list(one.run(pairs()))


def counting(data: Batches, drawn: list[int]) -> Iterator[tuple[Any, Any]]:
    """Iterate over `data` and note in `drawn` what was taken."""
    for number, pair in enumerate(data):
        drawn.append(number)
        yield pair


@pytest.mark.parametrize("leave", ["break", "KeyboardInterrupt"])
@pytest.mark.parametrize("schedule", ALL)
def test_leaving_the_loop_finishes_what_is_under_way(schedule: str, leave: str) -> None:
    drawn: list[int] = []
    stack = hooked(delay)

    def consume(one: Schedule) -> None:
        for number, _ in enumerate(one.run(counting(pairs(20), drawn), lr=rate)):
            if number == 2 and leave == "break":
                break
            if number == 2:
                raise KeyboardInterrupt

    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        if leave == "break":
            consume(one)
        else:
            with pytest.raises(KeyboardInterrupt):
                consume(one)
        assert 3 <= len(drawn) < 20
        assert steps(stack) == [{float(len(drawn))}] * 3
        assert_equal(snapshot(stack), plain(len(drawn)))
        # and the schedule can go on from there
        rest = pairs(20)[len(drawn) :]
        assert len(list(one.run(rest, lr=rate, first=len(drawn)))) == len(rest)
    assert not workers()
    assert_equal(snapshot(stack), plain(20))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals that go to one thread")
@pytest.mark.parametrize("schedule", ALL)
def test_ctrl_c_while_the_caller_waits_ends_at_once(schedule: str) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (1, 3, "forward"):
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.05)

    start = time.monotonic()
    with make_schedule(schedule, hooked(hook), threads=1) as one, pytest.raises(KeyboardInterrupt):
        list(one.run(pairs(40)))
    assert time.monotonic() - start < 2.0
    assert not workers()


def test_a_failure_during_the_drain_is_raised_when_the_schedule_ends() -> None:
    """Guards a bug: the batch that fails may be one that was still under way when the loop was left."""
    reached = threading.Event()

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch) == (2, 1):
            reached.wait(3.0)
            raise Broken

    one = make_schedule("continuous", hooked(hook), threads=1)
    for _ in one.run(pairs()):
        reached.set()
        break  # Python ends the iterator here, and would lose what that raises
    with pytest.raises(StageError, match="'layer_3' failed on batch 1"):
        one.close()
    one.close()


@pytest.mark.parametrize("schedule", ALL)
def test_a_second_run_while_one_is_open_is_an_error_or_right(schedule: str) -> None:
    """The losses of one run must never be handed out by another."""
    stack, data = hooked(nothing), pairs(8)
    stack.set_lr(0.0)
    with make_schedule(schedule, stack, threads=1) as one:
        expected = losses_of(list(one.run(data)))
        open_run = one.run(data[:4])
        found = losses_of([next(open_run)])
        try:
            second = losses_of(list(one.run(data[4:])))
        except RuntimeError as error:
            assert not isinstance(error, StageError)  # noqa: PT017 (refusing is right too)
        else:
            assert second == expected[4:]
        found += losses_of(list(open_run))
        assert found == expected[:4]


def test_close_may_be_called_twice_and_a_run_after_it_is_an_error() -> None:
    stack = hooked(nothing)
    one = make_schedule("continuous", stack, threads=1)
    list(one.run(pairs(2)))
    one.close()
    one.close()
    assert not workers()
    with pytest.raises(RuntimeError, match="closed"):
        list(one.run(pairs(2)))
    one.close()
    with make_schedule("continuous", stack, threads=1) as again:
        assert len(list(again.run(pairs(2)))) == 2


def test_closing_an_open_iterator_after_its_schedule_is_quiet() -> None:
    one = make_schedule("continuous", hooked(delay), threads=1)
    run = one.run(pairs())
    next(run)
    one.close()
    run.close()  # type: ignore[attr-defined]


def test_an_abandoned_run_that_ends_on_a_worker_does_not_wait_for_itself() -> None:
    """Guards a bug: its end waited for every layer's last step, and so for the very step that it came in.

    As by the garbage collector, which may run on any thread.
    """
    runs: list[Any] = []
    abandoned, ended = threading.Event(), threading.Event()

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (1, 0, "backward"):
            abandoned.wait(5.0)
            runs.clear()
            ended.set()

    one = make_schedule("continuous", hooked(hook), threads=1, workers=3)
    runs.append(one.run(pairs(3)))
    next(runs[0])
    abandoned.set()
    assert ended.wait(5.0)
    with pytest.raises(RuntimeError, match="abandoned"):
        one.close()
    assert not workers()


def test_a_schedule_that_never_ran_ends_its_threads() -> None:
    one = make_schedule("continuous", hooked(nothing), threads=1, workers=3)
    assert len(workers()) == 3
    one.close()
    assert not workers()


@pytest.mark.parametrize("schedule", ALL)
def test_an_empty_loader_yields_nothing(schedule: str) -> None:
    with make_schedule(schedule, hooked(nothing), threads=1) as one:
        assert list(one.run(iter(()))) == []


def test_a_worker_that_does_not_end_in_time_hides_no_other_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "JOIN_DEADLINE", 0.05)
    monkeypatch.setattr(continuous, "FAILURE_DEADLINE", 0.05)
    reached, release = threading.Event(), threading.Event()

    def slow(layer: int, batch: int, phase: str) -> None:
        if layer == 2:
            reached.set()
            release.wait(3.0)
        if (layer, batch) == (0, 2):
            reached.wait(3.0)
            raise Broken

    one = make_schedule("continuous", hooked(slow), threads=1)
    with pytest.raises(StageError, match="batch 2"), one:
        list(one.run(pairs()))
    with pytest.raises(RuntimeError, match="did not end within"):
        one.close()
    release.set()


def test_layers_that_moved_after_the_schedule_was_made_are_refused() -> None:
    stack = hooked(nothing)
    with make_schedule("continuous", stack, threads=1) as one:
        stack[1].to("meta")
        with pytest.raises(RuntimeError, match="place them first"):
            list(one.run(pairs()))
