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

#: Seconds that the threads have, together, to end.
DEADLINE = 2.0


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
        coded: Whether what goes to the next stage and to replicas is coded to take fewer bytes.

    Attributes:
        inboxes: What each rank before has sent, first to last. Each holds one message: the rest waits with the sender.
        results: On rank 0, what each other rank's layers have left, a message per item.
        to_replicas: Where rank 0 puts what the others of its stage read; threads send it, so that its caller can be
            interrupted.
        to_next: Where this rank sends what its layers hand on.
        to_first: Where this rank sends what its layers have left; None on rank 0.
        averages: For each of this rank's layers, if they have replicas, the group of these.
    """

    def __init__(
        self, chain: Chain, timeout: timedelta, failed: Callable[[Exception], None], *, coded: bool = False
    ) -> None:
        self.inboxes: list[LocalChannel[Message]] = []
        self.results: dict[int, LocalChannel[Message]] = {}
        self.to_replicas: list[LocalChannel[Message]] = []
        self.to_next: list[Sender] = []
        self.to_first: Sender | None = None
        self.averages: list[ReplicaGroup] = []
        self._failed = failed
        self._threads: list[WorkerThread] = []
        self._writers: list[Sender] = []
        #: With whom each group of this rank is.
        self._groups: list[tuple[Any, list[int]]] = []
        for one, other in chain.edges:
            group = self._join(chain.rank, [one, other], timeout)
            if chain.rank == one:
                sender = Sender(group, other, timeout, coded=coded)
                if chain.stage_of(other) == chain.stage:
                    self.to_replicas.append(LocalChannel(1))
                    self._write(sender, self.to_replicas[-1])
                else:
                    self.to_next.append(sender)
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
        """Begin to read and write."""
        for thread in self._threads:
            thread.start()

    def traffic(self) -> dict[str, Traffic]:
        """Return what this rank has sent, by receiver; what the last stage hands on are results alone."""
        ends = [*self._writers, *self.to_next, *([] if self.to_first is None else [self.to_first])]
        found = {f"rank{end.peer}": end.traffic for end in ends}
        if self.averages:
            found["replicas"] = sum((average.traffic for average in self.averages), Traffic())
        return found

    def wait(self) -> None:
        """Wait for the threads to end by themselves, as they do when a schedule was closed in order."""
        deadline = time.monotonic() + DEADLINE
        for thread in self._threads:
            thread.finished(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End every wait for another rank; safe to call twice, from any thread.

        Where a thread or a replica still waits, the run has not ended in order, and the connections are broken: gloo
        has no other way to end a wait.
        """
        for channel in (*self.inboxes, *self.results.values(), *self.to_replicas):
            channel.close()
        for average in self.averages:
            average.closed = True
        waiting = any(thread.ident is not None and not thread.finished(0.0) for thread in self._threads)
        if waiting or any(average.waiting for average in self.averages):
            for group, peers in self._groups:
                for peer in peers:
                    break_off(group, peer)

    def release(self) -> None:
        """Give back the groups, once nobody waits in them."""
        self.wait()
        if all(thread.ident is None or thread.finished(0.0) for thread in self._threads):
            for group, _ in self._groups:
                dist.destroy_process_group(group)
        self._groups = []

    def _join(self, rank: int, members: list[int], timeout: timedelta) -> Any:
        group = new_group(members, timeout)
        if rank in members:
            self._groups.append((group, [other for other in members if other != rank]))
        return group

    def _write(self, sender: Sender, channel: LocalChannel[Message]) -> None:
        """Make a thread that sends what is put into the channel."""
        self._writers.append(sender)

        def step() -> bool:
            message = channel.get()
            sender.send(message)
            return message.kind != Kind.CLOSE

        self._repeat(step, f"al-writer-{sender.peer}")

    def _read(self, receiver: Receiver, channel: LocalChannel[Message]) -> None:
        """Make a thread that puts what arrives into the channel."""

        def step() -> bool:
            message = receiver.receive()
            channel.put(message)
            return message.kind != Kind.CLOSE

        self._repeat(step, f"al-reader-{receiver.peer}")

    def _repeat(self, step: Callable[[], bool], name: str) -> None:
        """Make a thread that does the step again and again, until it returns False."""

        def work() -> None:
            try:
                while step():
                    pass
            except Closed:
                pass
            except Exception as error:
                self._failed(error)

        thread = WorkerThread(work, name)
        thread.stop = self.close
        self._threads.append(thread)
