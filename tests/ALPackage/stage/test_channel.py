"""The bounded channel: order, back-pressure, and a close that wakes everybody at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import pytest

from ALPackage.stage.channel import BEAT, Channel, Closed, LocalChannel, take


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Run `work` on a thread of its own."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_first_in_first_out() -> None:
    channel: Channel[int] = LocalChannel()
    for item in range(5):
        channel.put(item)
    assert [channel.get() for _ in range(5)] == list(range(5))


def test_every_item_crosses_threads_once_and_in_order() -> None:
    channel: Channel[int] = LocalChannel(depth=2)
    taken: list[int] = []
    taker = in_thread(lambda: taken.extend(channel.get() for _ in range(2000)))
    for item in range(2000):
        channel.put(item)
    taker.join(5.0)
    assert taken == list(range(2000))


def test_put_waits_while_the_channel_is_full() -> None:
    channel: Channel[int] = LocalChannel(depth=2)
    put: list[int] = []

    def work() -> None:
        for item in range(4):
            channel.put(item)
            put.append(item)

    putter = in_thread(work)
    time.sleep(0.05)
    assert put == [0, 1]
    assert channel.get() == 0
    time.sleep(0.05)
    assert put == [0, 1, 2]
    assert [channel.get() for _ in range(3)] == [1, 2, 3]
    putter.join(5.0)
    assert put == [0, 1, 2, 3]


@pytest.mark.parametrize("waiters", [1, 4])
@pytest.mark.parametrize("side", ["get", "put"])
def test_close_wakes_everyone_who_waits(side: str, waiters: int) -> None:
    channel: Channel[int] = LocalChannel(depth=1)
    if side == "put":
        channel.put(0)
    woken: list[float] = []

    def wait() -> None:
        try:
            if side == "get":
                channel.get()
            else:
                channel.put(1)
        except Closed:
            woken.append(time.monotonic())

    threads = [in_thread(wait) for _ in range(waiters)]
    time.sleep(0.05)
    assert not woken
    closed = time.monotonic()
    channel.close()
    for thread in threads:
        thread.join(5.0)
    assert len(woken) == waiters
    assert max(woken) - closed < 1.0


def test_a_closed_channel_drops_what_it_holds_and_refuses_more() -> None:
    channel: Channel[int] = LocalChannel()
    channel.put(1)
    channel.close()
    channel.close()
    with pytest.raises(Closed):
        channel.get()
    with pytest.raises(Closed):
        channel.put(2)


def test_ready_tells_whether_get_would_wait() -> None:
    channel: Channel[int] = LocalChannel()
    assert not channel.ready()
    channel.put(1)
    assert channel.ready()
    channel.get()
    assert not channel.ready()
    channel.close()
    assert channel.ready()


def test_what_arrives_while_the_channel_is_closed_is_not_kept() -> None:
    """A batch in a channel that nobody reads any more would keep its tensors."""
    channel: Channel[object] = LocalChannel()
    items = channel._items

    class Late:
        """Closes the channel just before the item arrives."""

        def put(self, item: object) -> None:
            channel._items = items
            channel.close()
            items.put(item)

    channel._items = Late()  # type: ignore[assignment]
    channel.put(object())
    held = [items.get_nowait() for _ in range(items.qsize())]
    assert len(held) == 1, "the item is held behind the mark of the closed"
    with pytest.raises(Closed):
        channel.get()


@pytest.mark.parametrize("seconds", [0.0, 0.5 * BEAT, 1.5 * BEAT])
def test_take_waits_as_long_as_asked(seconds: float) -> None:
    queue: SimpleQueue[int] = SimpleQueue()
    start = time.monotonic()
    with pytest.raises(Empty):
        take(queue, seconds)
    assert seconds <= time.monotonic() - start < seconds + 1.0
    queue.put(1)
    assert take(queue, seconds) == 1


@pytest.mark.parametrize("seconds", [None, 30.0])
def test_take_goes_on_over_many_beats(seconds: float | None) -> None:
    queue: SimpleQueue[int] = SimpleQueue()

    def put() -> None:
        time.sleep(2.5 * BEAT)
        queue.put(1)

    putter = in_thread(put)
    assert take(queue, seconds) == 1
    putter.join(5.0)


def test_a_local_channel_keeps_the_contract() -> None:
    """Whatever else implements it, such as a connection to another process, is interchangeable for a worker."""
    channel: Channel[int] = LocalChannel(2)
    names = {name for name, value in vars(Channel).items() if callable(value) and not name.startswith("_")}
    assert names == {"put", "get", "offer", "ready", "close"}
    assert names <= {name for name in dir(channel) if not name.startswith("_")}
