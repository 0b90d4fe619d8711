"""What waits before each layer, and which layer a worker takes next.

    caller --put--> [ x x ] layer 0   [ x ] layer 1   [ ] layer 2 --outlet--> caller
                      `-- take --> F of layer 0 -- hand_on --^   then B of layer 0, on the same worker

A layer is ready if it is not at work, something waits before it, and there is room behind it. A worker takes the first
ready layer of those that it ran last, whose weights are in its core's cache, or else the first ready one that it may
run. First means nearest to the caller: that keeps the queues full, and where something waits before every layer, there
is work for everybody. (The deepest first empties them; with some costs workers then wait 10 % of the time, see
benchmarks/NOTES.md.) Only the layer before fills a layer's queue, so the room that was there when it was taken is there
when it hands on: a worker never waits in the middle of a layer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from .batch import Batch, Marker
from .channel import Channel, Closed, LocalChannel
from .snapshot import Snapshot

#: What passes through the layers: batches, the snapshots between them, None at the end of a run, and markers.
Item = Batch | Snapshot | Marker | None


class Board:
    """The items under way between the layers, for workers that may each run some of them.

    Args:
        may_run: The layers that each worker may run, by index.
        layers: How many layers there are.
        depth: How many items may wait before a layer.

    Attributes:
        outlet: What has passed the last layer. Unbounded, so that no worker ever waits for the caller.
        fed: When the caller gave the first item of the run.

    The workers change the board under a lock. The caller's thread takes none, so that Ctrl-C, which can strike there
    between any two instructions, never leaves it locked.
    """

    def __init__(self, may_run: Sequence[Sequence[int]], layers: int, depth: int) -> None:
        self.outlet: Channel[Item] = LocalChannel()
        #: By worker, the layer nearest to the caller first.
        self._order = [sorted(able) for able in may_run]
        self._able = [[worker for worker, able in enumerate(may_run) if layer in able] for layer in range(layers)]
        self._depth = depth
        self._last = layers - 1
        # Behind the last layer there is always room: nothing is ever put into the queue that this one more stands for.
        self._waiting: list[deque[Item]] = [deque() for _ in range(layers + 1)]
        self._at_work = [False] * layers
        self._ran_last: list[int | None] = [None] * layers
        self._idle = [False] * len(may_run)
        self._bells: list[LocalChannel[None]] = [LocalChannel() for _ in may_run]
        self._places: LocalChannel[None] = LocalChannel()
        for _ in range(depth):
            self._places.put(None)
        self._lock = threading.Lock()
        self._closed = False
        self.fed = 0.0
        self._all_given = True

    def put(self, item: Item) -> None:
        """Give the first layer its next item, waiting for room; for the caller's thread. Raises Closed."""
        self._places.get()
        if self._all_given:
            self.fed = time.perf_counter()
        self._all_given = item is None
        self._append(0, item)
        # Only then: a worker that finds nothing first says that it is idle and then looks once more.
        self._wake_for(0)

    def take(self, worker: int, done: int | None) -> tuple[int, Item, bool]:
        """Return the layer that the worker is to run next, its item, and whether the worker had to wait for the caller.

        `done`: the layer that it is done with. Waits until a layer is ready. Raises Closed.
        """
        starved = False
        while True:
            with self._lock:
                if done is not None:
                    self._at_work[done] = False
                    done = None
                if self._closed:
                    raise Closed
                layer = self._pick(worker)
                if layer is None:
                    self._idle[worker] = True
                    layer = self._pick(worker)
                if layer is None:
                    starved = not self._at_work[0] and not self._waiting[0] and not self._all_given
                else:
                    self._idle[worker] = False
                    item = self._start(worker, layer)
                # What this has freed, the layer or the place before it, may be what another worker waits for. One is
                # woken; it wakes the next one if there is more to do.
                if True in self._idle:
                    self._wake_one()
            if layer is not None:
                return layer, item, starved
            self._bells[worker].get()

    def hand_on(self, layer: int, item: Item) -> None:
        """Pass on what a worker has taken for `layer`. Raises Closed."""
        if layer == self._last:
            self.outlet.put(item)
            return
        with self._lock:
            if self._closed:
                raise Closed
            self._append(layer + 1, item)
            if True in self._idle:
                self._wake_for(layer + 1)

    def close(self) -> None:
        """Drop what waits and end every worker after the layer that it is in; safe to call twice, from any thread.

        It takes no lock: the garbage collector may call it in the middle of anything.
        """
        self._closed = True
        for waiting in self._waiting:
            waiting.clear()
        self.outlet.close()
        for channel in (self._places, *self._bells):
            channel.close()

    def _append(self, layer: int, item: Item) -> None:
        self._waiting[layer].append(item)
        if self._closed:  # meanwhile: what is put there after the closing would be held for good
            self._waiting[layer].clear()
            raise Closed

    def _start(self, worker: int, layer: int) -> Item:
        self._at_work[layer] = True
        self._ran_last[layer] = worker
        try:
            item = self._waiting[layer].popleft()
        except IndexError:  # it has just been closed
            raise Closed from None
        if layer == 0:
            self._places.put(None)
        return item

    def _ready(self, layer: int) -> bool:
        return bool(self._waiting[layer] and not self._at_work[layer] and len(self._waiting[layer + 1]) < self._depth)

    def _pick(self, worker: int) -> int | None:
        best = None
        waiting, at_work, depth = self._waiting, self._at_work, self._depth
        for layer in self._order[worker]:
            if waiting[layer] and not at_work[layer] and len(waiting[layer + 1]) < depth:
                if self._ran_last[layer] == worker:
                    return layer
                if best is None:
                    best = layer
        return best

    def _wake_one(self) -> None:
        """Wake a worker for the first layer that is ready, if one that is idle may run it."""
        for layer in range(self._last + 1):
            if self._ready(layer) and self._ring(layer):
                return

    def _wake_for(self, layer: int) -> None:
        if self._ready(layer):
            self._ring(layer)

    def _ring(self, layer: int) -> bool:
        """Wake the worker that ran the layer last if it is idle, or else another one that is and may run it."""
        able, last = self._able[layer], self._ran_last[layer]
        for worker in able if last is None else (last, *able):
            if self._idle[worker]:
                self._idle[worker] = False
                self._bells[worker].put(None)
                return True
        return False
