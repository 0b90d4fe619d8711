"""How fast the connections between the ranks are, measured."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import pairwise

import torch
import torch.distributed as dist

from .link import Kind, Message, Receiver, Sender, new_group

#: Bytes of a message, and how many are sent; the first one opens the way.
SIZE, MESSAGES = 2**22, 4


def link_speed(ranks: list[int], timeout: float = 60.0) -> float:
    """Return the bytes per second of the slowest connection from each of `ranks` to the next; all ranks get the same.

    Every rank has to call it at the same time. Raises PeerLost.
    """
    here, slowest = dist.get_rank(), float("inf")
    limit = timedelta(seconds=timeout)
    for one, other in pairwise(ranks):
        group = new_group([one, other], limit)
        if here == one:
            sender, parts = Sender(group, other, limit), torch.zeros(SIZE, dtype=torch.uint8)
            for number in range(MESSAGES):
                sender.send(Message(Kind.TRAIN, number, parts))
                if number == 0:
                    began = time.perf_counter()
            slowest = min(slowest, (MESSAGES - 1) * SIZE / (time.perf_counter() - began))
        elif here == other:
            receiver = Receiver(group, one, limit)
            for _ in range(MESSAGES):
                receiver.receive()
        if here in (one, other):
            dist.destroy_process_group(group)
    found = torch.tensor(slowest, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return float(found)
