"""Which layer a worker takes next, whom that wakes, and that a closed board holds nobody."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from ALPackage.stage.batch import TrainBatch
from ALPackage.stage.board import Board
from ALPackage.stage.channel import Closed


def batch(number: int) -> TrainBatch:
    return TrainBatch(number, None, None)


def board(workers: int = 1, layers: int = 3, depth: int = 2, able: Sequence[Sequence[int]] | None = None) -> Board:
    return Board(able or [range(layers)] * workers, layers, depth)


def at(taken: tuple[int, Any, bool]) -> tuple[int, int]:
    """Return the layer and the batch of what was taken."""
    return taken[0], taken[1].number


class Thread:
    """Takes from a board on a thread of its own."""

    def __init__(self, one: Board, worker: int) -> None:
        self.found: SimpleQueue[Any] = SimpleQueue()

        def work() -> None:
            try:
                self.found.put(at(one.take(worker, None)))
            except Closed as end:
                self.found.put(end)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def result(self) -> Any:
        return self.found.get(timeout=3.0)


def test_the_first_ready_layer_comes_first() -> None:
    """Among those that the worker ran last, and among those that it did not."""
    one = board(workers=2)
    for number in range(2):
        one.put(batch(number))
        taken = one.take(0, 0 if number else None)
        assert at(taken) == (0, number)
        one.hand_on(0, taken[1])
    one.put(batch(2))
    taken = one.take(0, 0)
    assert at(taken) == (1, 0), "there is no room behind layer 0"
    one.hand_on(1, taken[1])
    assert at(one.take(0, 1)) == (0, 2), "layers 0 and 1 are ready, and it ran both last"
    assert at(one.take(1, None)) == (1, 1), "layers 1 and 2 are ready, and it ran neither"


def test_a_layer_that_the_worker_ran_last_comes_before_an_earlier_one() -> None:
    one = board(workers=2)
    for number in range(2):
        one.put(batch(number))
    first = one.take(0, None)
    one.hand_on(0, first[1])
    later = one.take(1, None)
    assert at(later) == (1, 0), "layer 0 is at work"
    one.hand_on(1, later[1])
    second = one.take(0, 0)
    assert at(second) == (0, 1)
    one.hand_on(0, second[1])
    assert at(one.take(0, 0)) == (2, 0), "nothing else is ready"
    one.put(batch(2))
    assert at(one.take(1, 1)) == (1, 1), "layer 0 is ready too, but worker 1 has run layer 1"


def test_a_layer_is_at_work_on_one_batch_at_a_time() -> None:
    one = board(workers=2)
    for number in range(2):
        one.put(batch(number))
    taken = one.take(0, None)
    one.hand_on(0, taken[1])
    assert at(one.take(1, None)) == (1, 0), "the first layer has a batch waiting, but it is at work"
    other = Thread(one, 0)
    time.sleep(0.05)
    assert other.found.empty()
    one.close()


def test_a_layer_without_room_behind_it_is_not_ready() -> None:
    """Layer 1 may run on worker 1 alone, which does nothing for a while."""
    one = board(able=[[0, 2], [1]], depth=2)
    for number in range(2):
        one.put(batch(number))
        taken = one.take(0, None if number == 0 else 0)
        assert at(taken) == (0, number)
        one.hand_on(0, taken[1])
    one.put(batch(2))
    waiting = Thread(one, 0)
    time.sleep(0.05)
    assert waiting.found.empty(), "the third batch would have no place before layer 1"
    one.close()
    assert isinstance(waiting.result(), Closed)


def test_making_room_wakes_who_waits_for_it() -> None:
    one = board(able=[[0], [1]], layers=2, depth=1)
    one.put(batch(0))
    taken = one.take(0, None)
    one.hand_on(0, taken[1])
    one.put(batch(1))
    done = []

    def first() -> None:
        done.append(at(one.take(0, 0)))

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert not done, "there is no room before layer 1"
    assert at(one.take(1, None)) == (1, 0)
    thread.join(3.0)
    assert done == [(0, 1)]
    one.close()


def test_the_caller_waits_for_a_place_before_the_first_layer() -> None:
    one = board(depth=2)
    put: list[int] = []

    def feed() -> None:
        for number in range(4):
            one.put(batch(number))
            put.append(number)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert put == [0, 1]
    one.take(0, None)
    time.sleep(0.05)
    assert put == [0, 1, 2]
    one.take(0, 0)
    thread.join(3.0)
    assert put == [0, 1, 2, 3]


def test_one_batch_wakes_one_worker_and_not_the_herd(monkeypatch: pytest.MonkeyPatch) -> None:
    one, looks = board(workers=8, layers=4), []
    pick = Board._pick
    monkeypatch.setattr(Board, "_pick", lambda self, worker: (looks.append(worker), pick(self, worker))[1])
    threads = [Thread(one, worker) for worker in range(8)]
    deadline = time.monotonic() + 3.0
    while not all(one._idle) and time.monotonic() < deadline:
        time.sleep(0.001)
    looks.clear()
    one.put(batch(0))
    deadline = time.monotonic() + 3.0
    while all(thread.found.empty() for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(looks) == 1
    assert sum(not thread.found.empty() for thread in threads) == 1
    one.close()


def test_whoever_ran_the_layer_last_is_woken() -> None:
    one = board(workers=4, layers=1)
    one.put(batch(0))
    one.take(2, None)
    threads = [Thread(one, worker) for worker in (0, 1, 3)]
    done: list[Any] = []
    last = threading.Thread(target=lambda: done.append(at(one.take(2, 0))), daemon=True)
    last.start()
    deadline = time.monotonic() + 3.0
    while not all(one._idle) and time.monotonic() < deadline:
        time.sleep(0.001)
    one.put(batch(1))
    last.join(3.0)
    assert done == [(0, 1)]
    assert all(thread.found.empty() for thread in threads)
    one.close()


@pytest.mark.parametrize(
    "call",
    [lambda one: one.take(1, None), lambda one: one.put(batch(9)), lambda one: one.outlet.get()],
    ids=["take", "put", "outlet"],
)
def test_closing_ends_every_wait_and_refuses_what_comes_later(call: Callable[[Board], Any]) -> None:
    one = board(able=[[0], [1]], layers=2, depth=1)
    one.put(batch(0))
    ended: list[Any] = []

    def wait() -> None:
        try:
            call(one)
        except Closed as end:
            ended.append(end)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.02)
    assert not ended
    one.close()
    one.close()
    thread.join(3.0)
    assert ended
    for late in (lambda: one.take(0, None), lambda: one.put(batch(1)), lambda: one.hand_on(0, batch(0))):
        with pytest.raises(Closed):
            late()
    assert not any(one._waiting), "what waits is dropped, and so is what comes after the closing"


def test_closing_takes_no_lock() -> None:
    """The garbage collector may do it on a thread that holds the lock."""
    one = board()
    with one._lock:
        one.close()
    with pytest.raises(Closed):
        one.take(0, None)


def test_the_marker_of_the_end_comes_after_everything() -> None:
    one = board(layers=1)
    one.put(batch(0))
    one.put(None)
    taken = one.take(0, None)
    one.hand_on(0, taken[1])
    layer, item, _ = one.take(0, 0)
    assert item is None
    one.hand_on(layer, item)
    assert one.outlet.get() is taken[1]
    assert one.outlet.get() is None


def test_a_wait_is_for_the_caller_only_while_the_first_layer_has_nothing() -> None:
    one = board(workers=2, able=[[0, 1], [1]], layers=2)
    one.put(batch(0))
    one.take(0, None)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(one.take(0, 0)[2]), daemon=True)
    thread.start()
    while not one._idle[0]:
        time.sleep(0.001)
    one.put(batch(1))
    thread.join(3.0)
    assert found == [True]
    other = threading.Thread(target=lambda: found.append(one.take(1, None)[2]), daemon=True)
    other.start()
    while not one._idle[1]:
        time.sleep(0.001)
    one.hand_on(0, batch(0))
    other.join(3.0)
    assert found == [True, False], "the first layer was at work, so this wait was for another worker"


def test_what_comes_before_a_run_and_after_its_last_batch_is_no_wait_for_the_caller() -> None:
    one = board(workers=1, layers=1)
    found: list[bool] = []

    def work() -> None:
        done = None
        for _ in range(3):
            done, item, starved = one.take(0, done)
            found.append(starved)
            one.hand_on(done, item)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for item in (batch(0), None, batch(0)):
        while not one._idle[0]:
            time.sleep(0.001)
        one.put(item)
        one.outlet.get()
    thread.join(3.0)
    assert found == [False, True, False], "only the end of a run that is under way was the caller's to give"


@pytest.mark.parametrize("seed", range(6))
def test_every_item_passes_every_layer_in_order_whoever_may_run_what(seed: int) -> None:
    """Beside a slow twin: what a row of layers does to a row of items, one after another."""
    draw = random.Random(seed)
    layers, workers, depth, count = draw.randint(1, 5), draw.randint(1, 6), draw.randint(1, 3), 200
    able = [[layer for layer in range(layers) if draw.random() < 0.5] for _ in range(workers)]
    for layer in range(layers):
        able[draw.randrange(workers)].append(layer)
    one = Board([sorted(set(mine)) for mine in able], layers, depth)
    seen: list[list[int]] = [[] for _ in range(layers)]
    at_work = [0] * layers

    def work(worker: int) -> None:
        done = None
        try:
            while True:
                done, item, _ = one.take(worker, done)
                assert done in able[worker]
                at_work[done] += 1
                assert at_work[done] == 1
                seen[done].append(item.number)  # type: ignore[union-attr]
                if item.number % 3 == 0:  # type: ignore[union-attr]
                    time.sleep(0.0002)
                at_work[done] -= 1
                one.hand_on(done, item)
        except Closed:
            pass

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for number in range(count):
        one.put(batch(number))
    out = [one.outlet.get().number for _ in range(count)]  # type: ignore[union-attr]
    one.close()
    for thread in threads:
        thread.join(3.0)
    assert out == list(range(count))
    assert seen == [list(range(count))] * layers
