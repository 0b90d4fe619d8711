"""Ctrl-C at any moment: the caller gets KeyboardInterrupt soon, and no thread is left."""

from __future__ import annotations

import _thread
import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest

from ALPackage import Schedule, make_schedule
from ALPackage.busy import busy, refuse_if_busy
from ALPackage.schedules.continuous import Continuous
from ALPackage.stage.board import Board
from ALPackage.stage.channel import LocalChannel

from ..hooked import SEED, ALStack, assert_equal, hooked, nothing, pairs, plain, rate, snapshot, workers

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals that go to one thread")
MOMENTS = 40


def no_threads() -> bool:
    """Tell whether all threads of the schedules end within 2 s."""
    deadline = time.monotonic() + 2.0
    while any(thread.is_alive() for thread in workers()) and time.monotonic() < deadline:
        gc.collect()  # seldom: meanwhile no thread can do anything
        for _ in range(50):
            time.sleep(0.01 if any(thread.is_alive() for thread in workers()) else 0.0)
    return not any(thread.is_alive() for thread in workers())


def pause(layer: int, batch: int, phase: str) -> None:
    """Take a moment, so that a run lasts some milliseconds."""
    time.sleep(0.0005)


def options(name: str) -> dict[str, int]:
    """Return the options of a schedule in these tests."""
    return {"threads": 1, "workers": 3} if name == "continuous" else {"threads": 1}


def whole(name: str, stack: ALStack, started: Callable[[], None]) -> None:
    """Make a schedule, train, leave a loop early, predict, and close."""
    started()
    with make_schedule(name, stack, **options(name)) as one:
        list(one.run(pairs(6)))
        list(one.predict(x for x, _ in pairs(4)))
        list(one.run(pairs(3)))


@pytest.mark.parametrize("name", ["sequential", "al-fm", "continuous"])
def test_at_random_moments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that strikes inside a finalizer is printed and lost: that is Python's own limit, so it is counted apart."""
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: lost.append(what.exc_type))
    main = threading.main_thread().ident
    assert main is not None
    whole(name, hooked(pause), lambda: None)
    begin = time.monotonic()
    whole(name, hooked(pause), lambda: None)
    length = 1.05 * (time.monotonic() - begin)
    draw, hit, struck = random.Random(7), 0, [0.0]
    for moment in range(MOMENTS):
        fire, done = threading.Event(), threading.Event()
        after = draw.random() * length

        def strike(fire: Any = fire, done: Any = done, after: float = after) -> None:
            fire.wait(5.0)
            if not done.wait(after):
                struck[0] = time.monotonic()
                signal.pthread_kill(main, signal.SIGINT)
            done.set()

        timer = threading.Thread(target=strike, name="ctrl-c")
        timer.start()
        stack = hooked(pause)
        try:
            try:
                whole(name, stack, fire.set)
            finally:
                took = time.monotonic() - struck[0]
                done.set()
                timer.join()
        except KeyboardInterrupt:
            hit += 1
            assert took < 2.0, f"moment {moment}"
        timer.join()
        assert no_threads(), f"moment {moment}: {[thread.name for thread in workers()]} left"
        for layer in stack:
            layer.discard()
        with make_schedule(name, stack, threads=1) as again:
            assert len(list(again.run(pairs(1)))) == 1
    assert hit + len(lost) >= MOMENTS // 2
    assert len(lost) <= 2, "Ctrl-C was lost"


def once(function: Callable[..., Any], at: int, before: bool) -> tuple[Callable[..., Any], list[bool]]:
    """Return `function` with Ctrl-C before or after its call number `at` on the main thread, and whether it came."""
    calls, came = [0], []

    def call(*args: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() or came:
            return function(*args, **options)
        calls[0] += 1
        if calls[0] == at and before:
            came.append(True)
            raise KeyboardInterrupt
        result = function(*args, **options)
        if calls[0] == at:
            came.append(True)
            raise KeyboardInterrupt
        return result

    return call, came


#: What the engine calls on the caller's thread, and up to which of its calls in `whole` Ctrl-C is tried.
PLACES: list[tuple[Any, str, int]] = [
    (LocalChannel, "put", 3),
    (LocalChannel, "get", 3),
    (LocalChannel, "ready", 3),
    (LocalChannel, "close", 3),
    (LocalChannel, "_take", 3),
    (LocalChannel, "_append", 3),
    (Board, "put", 3),
    (Board, "_append", 3),
    (Board, "_wake_for", 3),
    (Board, "_ring", 2),
    (Board, "close", 1),
    (Continuous, "_join", 1),
    (Continuous, "_drain", 3),
    (Continuous, "close", 1),
    (threading.Thread, "start", 3),
    (threading.Thread, "join", 3),
]
CASES = [(owner, method, at) for owner, method, calls in PLACES for at in range(1, calls + 1)]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("owner", "method", "at"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_inside_every_call_that_the_engine_makes(
    owner: Any, method: str, at: int, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # an earlier test's schedule, if it were collected below, would make calls of its own
    call, came = once(getattr(owner, method), at, before)
    stack = hooked(nothing)
    start = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(owner, method, call)
        with pytest.raises(KeyboardInterrupt):
            whole("continuous", stack, lambda: None)
    assert came
    assert time.monotonic() - start < 2.0
    assert no_threads()
    with make_schedule("continuous", stack, threads=1, workers=3) as again:
        assert len(list(again.run(pairs(2)))) == 2


def test_as_a_failure_begins_to_end_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: the end of the `with` block took them for ended, and they waited as long as the schedule lived."""
    abort, came = once(Continuous._abort, 1, True)
    monkeypatch.setattr(Continuous, "_abort", abort)
    one = make_schedule("continuous", hooked(nothing), threads=1, workers=3)
    with pytest.raises(KeyboardInterrupt), one:
        list(one.run([*pairs(2), None]))  # type: ignore[list-item]
    assert came
    assert no_threads()
    one.close()


def test_as_layers_are_marked_as_busy_leaves_none_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: no schedule could train the stack afterwards."""
    stack, update = hooked(nothing), WeakSet.update

    def interrupted(self: Any, other: Any) -> None:
        update(self, other)
        raise KeyboardInterrupt

    monkeypatch.setattr(WeakSet, "update", interrupted)
    with pytest.raises(KeyboardInterrupt), busy([stack]):
        pass
    refuse_if_busy(stack, "test")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_while_a_loop_that_was_left_is_drained_comes_when_the_schedule_ends() -> None:
    """Python drops what the end of an abandoned iterator raises."""
    main = threading.main_thread().ident
    assert main is not None
    left = threading.Event()

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (1, 2, "forward"):
            left.wait(3.0)
            time.sleep(0.05)
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.05)

    def leave() -> None:
        with make_schedule("continuous", hooked(hook), threads=1, workers=3) as one:
            for _ in one.run(pairs(20)):
                left.set()
                break
            with pytest.raises(RuntimeError, match="closed"):  # and not the batches of the run that was left
                list(one.run(pairs(2)))

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        leave()
    assert time.monotonic() - start < 2.0
    assert no_threads()


def wake_and_interrupt() -> None:
    """Ctrl-C that ends the wait which the main thread is in."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def interrupt_as_it_falls_asleep() -> None:
    """Ctrl-C in the moment between the interpreter's last look for signals and the wait, which it does not end."""
    time.sleep(0.1)  # until the main thread waits; what follows notes the signal and wakes nobody
    _thread.interrupt_main()


@pytest.mark.parametrize("strike", [wake_and_interrupt, interrupt_as_it_falls_asleep])
@pytest.mark.parametrize("name", ["al-fm", "continuous"])
def test_while_another_layer_is_in_a_long_step(name: str, strike: Callable[[], None]) -> None:
    """The caller does not wait for it longer than two seconds; it ends on its own afterwards."""
    release, struck = threading.Event(), []

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (1, 1, "backward"):
            struck.append(time.monotonic())
            strike()
            release.wait(10.0)

    one: Schedule = make_schedule(name, hooked(hook), **options(name))
    try:
        with pytest.raises(KeyboardInterrupt), one:
            list(one.run(pairs(10)))
        assert time.monotonic() - struck[0] < 2.0
    finally:
        release.set()
    assert no_threads()


def test_after_a_loop_that_ctrl_c_left_outside_the_schedule_it_goes_on() -> None:
    """Ctrl-C in the caller's own code between two batches is like a break."""
    stack = hooked(nothing)
    with make_schedule("continuous", stack, threads=1, workers=3, seed=SEED) as one:
        data = iter(pairs(12))
        taken = []

        def loader() -> Iterator[Any]:
            for pair in data:
                taken.append(pair)
                yield pair

        def interrupted() -> None:
            for _ in one.run(loader(), lr=rate):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        rest = list(data)
        list(one.run(rest, lr=rate, first=len(taken)))
    assert len(taken) + len(rest) == 12
    assert_equal(snapshot(stack), plain(12))
