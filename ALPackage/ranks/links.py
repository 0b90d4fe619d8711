"""A rank's connections: from the ranks before it, to the next ones, and with rank 0, which gets all results.

    rank 0 --next--> rank 1 --next--> rank 2
       ^--results------'                |
       '--results-----------------------'

Every connection is a group of two ranks, and a thread of its own reads what arrives. Replicas have a group besides, for
every layer, because the layers of a stage need not come to their averages in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ..stage.channel import Closed, LocalChannel
from ..stage.threads import WorkerThread
from .averaging import ReplicaGroup
from .chain import Chain
from .link import Kind, Message, Receiver, Sender, Traffic, break_off, new_group

#: Seconds that the readers have, together, to end.
READER_DEADLINE = 2.0


def store_of(name: str) -> Any:
    """Return a part of the store at which the ranks have met, for keys of one's own.

    It has a connection of its own: making groups, which waits for other ranks, would hold up whoever shares it.
    """
    store = dist.PrefixStore(name, dist.distributed_c10d._get_default_store())  # type: ignore[attr-defined]
    return store.clone() if hasattr(store, "clone") else store


class Links:
    """The connections of this rank. All ranks have to make theirs at the same time: making groups is collective.

    Args:
        chain: Which rank has which layers.
        timeout: Within what time a message that has begun has to arrive.
        failed: Called on a reader's thread when a connection breaks.

    Attributes:
        inboxes: What each rank before has sent, first to last. Each holds one message: the rest waits with the sender.
        results: On rank 0, what each other rank's layers have left, a message per item.
        to_replicas: Where rank 0 sends what the others of its stage read.
        to_next: Where this rank sends what its layers hand on.
        to_first: Where this rank sends what its layers have left; None on rank 0.
        averages: For each of this rank's layers, if they have replicas, the group of these.
    """

    def __init__(self, chain: Chain, timeout: timedelta, failed: Callable[[Exception], None]) -> None:
        self.inboxes: list[LocalChannel[Message]] = []
        self.results: dict[int, LocalChannel[Message]] = {}
        self.to_replicas: list[Sender] = []
        self.to_next: list[Sender] = []
        self.to_first: Sender | None = None
        self.averages: list[ReplicaGroup] = []
        self._failed = failed
        self._readers: list[WorkerThread] = []
        #: With whom each group of this rank is.
        self._groups: list[tuple[Any, list[int]]] = []
        for one, other in chain.edges:
            group = self._join(chain.rank, [one, other], timeout)
            if chain.rank == one:
                ends = self.to_replicas if chain.stage_of(other) == chain.stage else self.to_next
                ends.append(Sender(group, other, timeout))
            elif chain.rank == other:
                self.inboxes.append(LocalChannel(1))
                self._read(Receiver(group, one, timeout), self.inboxes[-1])
        for other in chain.order[1:]:
            group = self._join(chain.rank, [0, other], timeout)
            if chain.rank == other:
                self.to_first = Sender(group, 0, timeout)
            elif chain.rank == 0:
                self.results[other] = LocalChannel()
                self._read(Receiver(group, other, timeout), self.results[other])
        for members in chain.groups:
            for _ in chain.layers_of(members[0]) if len(members) > 1 else ():
                group = self._join(chain.rank, list(members), timeout)
                if chain.rank in members:
                    self.averages.append(ReplicaGroup(group, list(members)))

    def start(self) -> None:
        """Begin to read."""
        for reader in self._readers:
            reader.start()

    def traffic(self) -> dict[str, Traffic]:
        """Return what this rank has sent, by receiver; what the last stage hands on are results alone."""
        ends = [*self.to_replicas, *self.to_next, *([] if self.to_first is None else [self.to_first])]
        found = {f"rank{end.peer}": end.traffic for end in ends}
        if self.averages:
            found["replicas"] = sum((average.traffic for average in self.averages), Traffic())
        return found

    def wait(self) -> None:
        """Wait for the readers to end by themselves, as they do when a schedule was closed in order."""
        deadline = time.monotonic() + READER_DEADLINE
        for reader in self._readers:
            reader.finished(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End every wait for another rank; safe to call twice, from any thread.

        Where a reader or a replica still waits, the run has not ended in order, and the connections are broken: gloo
        has no other way to end a wait.
        """
        for channel in (*self.inboxes, *self.results.values()):
            channel.close()
        waiting = any(reader.ident is not None and not reader.finished(0.0) for reader in self._readers)
        if waiting or any(average.waiting for average in self.averages):
            for group, peers in self._groups:
                for peer in peers:
                    break_off(group, peer)

    def release(self) -> None:
        """Give back the groups, once nobody waits in them."""
        self.wait()
        if all(reader.ident is None or reader.finished(0.0) for reader in self._readers):
            for group, _ in self._groups:
                dist.destroy_process_group(group)
        self._groups = []

    def _join(self, rank: int, members: list[int], timeout: timedelta) -> Any:
        group = new_group(members, timeout)
        if rank in members:
            self._groups.append((group, [other for other in members if other != rank]))
        return group

    def _read(self, receiver: Receiver, channel: LocalChannel[Message]) -> None:
        """Make a thread that puts what arrives into the channel."""

        def work() -> None:
            try:
                while True:
                    message = receiver.receive()
                    channel.put(message)
                    if message.kind == Kind.CLOSE:
                        return
            except Closed:
                pass
            except Exception as error:
                self._failed(error)

        reader = WorkerThread(work, f"al-reader-{receiver.peer}")
        reader.stop = self.close
        self._readers.append(reader)
