"""A bounded first-in, first-out hand-over between two threads that can be closed from anywhere."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Channel", "Closed"]

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 (a state that a loop ends on, not an error)
    """The channel was closed: nothing more can be put into it or taken from it."""


class Channel(Generic[T]):
    """Like `queue.Queue`, with `close`: it wakes every waiting thread at once, so that nobody polls.

    `depth`: items held before `put` waits; None is unbounded. Closing drops the items that are held.
    """

    def __init__(self, depth: int | None = None) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._freed = threading.Condition(lock)

    def put(self, item: T) -> None:
        """Append `item`, waiting for space. Raises Closed."""
        with self._freed:
            while not self._closed and self._depth is not None and len(self._items) >= self._depth:
                self._freed.wait()
            if self._closed:
                raise Closed
            self._items.append(item)
            self._filled.notify()

    def get(self) -> T:
        """Take the oldest item, waiting for one. Raises Closed."""
        with self._filled:
            while not self._closed and not self._items:
                self._filled.wait()
            if self._closed:
                raise Closed
            item = self._items.popleft()
            self._freed.notify()
            return item

    def ready(self) -> bool:
        """Tell whether `get` would return at once or raise."""
        return bool(self._items) or self._closed

    def close(self) -> None:
        """Refuse all further items and wake every thread that waits here."""
        with self._filled:
            self._closed = True
            self._items.clear()
            self._filled.notify_all()
            self._freed.notify_all()
