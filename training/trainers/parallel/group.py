"""The ranks that train one network together: what rank 0 tells the others to do, and the connections between them.

rank 0    a batch is due --> tell(STEP)    its part of the step
others                       heard()       their part of the step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from ALPackage import RankError
from ALPackage.ranks.link import UNLIMITED, Kind, Message, PeerLost, Receiver, Sender, break_off


class Do(IntEnum):
    """What all ranks do next."""

    STEP = 1  # train on a batch
    LOAD = 2  # take over a state that rank 0 sends
    STATE = 3  # send rank 0 the state of one's own layers
    END = 4


@dataclass(frozen=True)
class Order:
    """What to do; of a step its number, its learning rate, and how many samples the batch has."""

    do: Do
    step: int = 0
    rate: float = math.nan


def lost(error: RuntimeError) -> Exception:
    """Return the error of a connection that broke as one of a rank."""
    return RankError(f"a rank is gone: {str(error).strip().splitlines()[0]}")


class Group:
    """All ranks of the command. Every rank makes one at the same time.

    Nothing limits the time between two orders, where an evaluation may lie, nor that of a step: ranks that are gone or
    hang are found by other means.

    Args:
        why: Returns what to raise for a connection that broke.

    Attributes:
        process_group: For collective operations of one's own.
    """

    def __init__(self, why: Callable[[RuntimeError], Exception] = lost) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._why = why
        #: Whether the ranks were left in the middle of something.
        self._broken = False
        with self.connected():
            self.process_group: Any = dist.new_group(timeout=UNLIMITED, backend="gloo")
        self._senders: dict[int, Sender] = {}
        self._receivers: dict[int, Receiver] = {}

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Take part in something with all ranks; a connection that breaks in it is told as what has happened."""
        try:
            yield
        except BaseException as error:
            self._broken = True
            self.break_off()  # whoever waits for this rank would wait in vain
            if isinstance(error, RuntimeError) and (isinstance(error, PeerLost) or "gloo" in str(error)):
                raise self._why(error) from None
            raise

    def tell(self, order: Order) -> None:
        """Tell the other ranks what comes next; on rank 0, inside of `connected`."""
        dist.broadcast(torch.tensor([order.do, order.step, order.rate], dtype=torch.float64), 0, self.process_group)

    def heard(self) -> Order:
        """Wait for what rank 0 tells; on the other ranks, inside of `connected`."""
        told = torch.empty(3, dtype=torch.float64)
        dist.broadcast(told, 0, self.process_group)
        do, step, rate = told.tolist()
        return Order(Do(int(do)), int(step), rate)

    def send(self, peer: int, content: Any) -> None:
        """Send a nested structure of tensors to another rank."""
        if peer not in self._senders:
            self._senders[peer] = Sender(self.process_group, peer, UNLIMITED)
        self._senders[peer].send(Message(Kind.LOAD, content=content))

    def receive(self, peer: int) -> Any:
        """Return what another rank sends."""
        if peer not in self._receivers:
            self._receivers[peer] = Receiver(self.process_group, peer, UNLIMITED)
        return self._receivers[peer].receive().content

    def close(self, failed: bool) -> None:
        """End it in order, unless it broke. `failed`: there is an error already, which matters more than one here."""
        if self._broken:
            return
        with suppress(RuntimeError) if failed else nullcontext(), self.connected():
            self.tell(Order(Do.END))
        self.release()

    def release(self) -> None:
        """Give the connections back."""
        if not self._broken:
            dist.destroy_process_group(self.process_group)

    def break_off(self) -> None:
        """End, with an error, what other ranks wait for."""
        for peer in range(self.world):
            if peer != self.rank:
                with suppress(RuntimeError):
                    break_off(self.process_group, peer)
