"""The contract between neighboring workers, and its implementation between two threads of one process."""

from __future__ import annotations

import os
import time
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
CLOSED: Any = object()
#: Seconds after which a wait starts over, so that Ctrl-C is seen.
BEAT = 0.1


class Closed(Exception):  # noqa: N818 (a state that a loop ends on, not an error)
    """The channel was closed: nothing more can be put into it or taken from it."""


class Channel(Protocol[T]):
    """All that a worker knows of its neighbors: a bounded first-in, first-out queue that anyone may close."""

    def put(self, item: T) -> None:
        """Append `item`, waiting for space. Raises Closed."""

    def offer(self, item: T) -> bool:
        """Append `item` if there is space now, and return whether there was. Raises Closed."""

    def get(self) -> T:
        """Take the oldest item, waiting for one. Raises Closed."""

    def ready(self) -> bool:
        """Return whether `get` would return or raise at once."""

    def close(self) -> None:
        """Drop what is held, refuse all further items and wake everyone who waits; safe to call twice."""


def take(queue: SimpleQueue[T], seconds: float | None = None, process: int | None = None) -> T:
    """Take the oldest item, waiting up to `seconds`, or without limit. Raises Empty.

    `process`: the one whose threads put something in. Raises Closed in any other, such as one that was forked off:
    there nobody would ever do it.

    Ctrl-C is seen within a `BEAT`. Python by itself may see it only after the wait: a signal that arrives between its
    last look for signals and the wait wakes nobody, and on Windows no signal does.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        beat = BEAT if deadline is None else min(BEAT, max(0.0, deadline - time.monotonic()))
        try:
            return queue.get(timeout=beat)
        except Empty:
            if process is not None and os.getpid() != process:
                raise Closed from None
            if deadline is not None and time.monotonic() >= deadline:
                raise


class LocalChannel(Generic[T]):
    """A `Channel` between two threads.

    `depth`: items held before `put` waits; None is unbounded.

    Made of two of the interpreter's own C queues, one for items and one for free places: no lock is ever held by
    Python code, so that Ctrl-C, which can strike between any two instructions, never leaves one locked.
    """

    def __init__(self, depth: int | None = None) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()
        self._places: SimpleQueue[None] | None = None if depth is None else SimpleQueue()
        self._closed = False
        self._process = os.getpid()
        for _ in range(depth or 0):
            self._free_place()

    def put(self, item: T) -> None:
        """Append `item`, waiting for space. Raises Closed."""
        if self._places is not None:
            self._take(self._places)
        self._append(item)

    def offer(self, item: T) -> bool:
        """Append `item` if there is space now, and return whether there was. Raises Closed."""
        if self._places is not None:
            try:
                self._take(self._places, block=False)
            except Empty:
                return False
        self._append(item)
        return True

    def get(self) -> T:
        """Take the oldest item, waiting for one. Raises Closed."""
        item: T = self._take(self._items)
        self._free_place()
        return item

    def ready(self) -> bool:
        """Return whether `get` would return or raise at once."""
        return self._closed or not self._items.empty()

    def close(self) -> None:
        """Drop what is held, refuse all further items and wake everyone who waits; safe to call twice."""
        self._closed = True
        for queue in (self._items, self._places):
            if queue is not None:
                _empty(queue)
                queue.put(CLOSED)

    def _append(self, item: T) -> None:
        if self._closed:
            raise Closed
        self._items.put(item)
        if self._closed:  # meanwhile: an item that arrives after the closing would be held for good
            self.close()

    def _free_place(self) -> None:
        if self._places is not None:
            self._places.put(None)

    def _take(self, queue: SimpleQueue[Any], block: bool = True) -> Any:
        if self._closed:
            raise Closed
        item = take(queue, process=self._process) if block else queue.get_nowait()
        if self._closed:
            queue.put(CLOSED)  # for the next one who waits here
            raise Closed
        return item


def _empty(queue: SimpleQueue[Any]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
