"""Which workers a pipeline has, and which layers each of them may run.

placement of a layer      who may run it
"cpu"                     any CPU worker
"cpu:K"                   the CPU worker K alone
"cuda:K"                  any worker of that GPU; there is one per stream
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch

from ..devices import own_cores


@dataclass(frozen=True)
class Member:
    """A worker: its name, such as "cpu:0", its device as torch knows it, and the layers that it may run, by index."""

    name: str
    device: torch.device
    layers: tuple[int, ...]


def crew(
    placements: Sequence[torch.device],
    *,
    workers: int | None = None,
    threads: int = 1,
    streams_per_device: int = 1,
) -> list[Member]:
    """Return the workers for layers that are placed so, CPU workers first.

    `workers`: CPU workers; by default one per `threads` cores, but not more than there are layers on the CPU. A layer
    that is tied to a worker has it in any case. `streams_per_device`: workers of each GPU. Raises ValueError for more
    ties than workers, and for numbers below 1.
    """
    for name, value in (("workers", workers), ("streams_per_device", streams_per_device)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: got {value!r}; expected a whole number of at least 1")
    members = []
    on_cpu = [index for index, device in enumerate(placements) if device.type == "cpu"]
    if on_cpu:
        for number in _numbers([placements[index] for index in on_cpu], workers, threads):
            own = tuple(index for index in on_cpu if placements[index].index in (None, number))
            members.append(Member(f"cpu:{number}", torch.device("cpu"), own))
    for device in dict.fromkeys(device for device in placements if device.type != "cpu"):
        own = tuple(index for index, other in enumerate(placements) if other == device)
        for stream in range(streams_per_device):
            name = str(device) if streams_per_device == 1 else f"{device} stream {stream}"
            members.append(Member(name, device, own))
    return members


def _numbers(placements: Sequence[torch.device], workers: int | None, threads: int) -> list[int]:
    """Return the numbers of the CPU workers: those that layers are tied to, and the lowest others."""
    tied = sorted({device.index for device in placements if device.index is not None})
    if workers is not None and len(tied) > workers:
        names = ", ".join(f"cpu:{number}" for number in tied)
        raise ValueError(f"workers: got {workers}, but layers are tied to {len(tied)} of them ({names})")
    free = sum(device.index is None for device in placements)
    if not free:
        return tied
    wanted = min(max(1, own_cores() // threads), len(placements)) if workers is None else workers
    others = (number for number in count() if number not in tied)
    return sorted([*tied, *(next(others) for _ in range(wanted - len(tied)))])


def bound(costs: Sequence[float], members: Sequence[Member], at_once: float = math.inf) -> float:
    """Return the seconds per batch that no run can beat, from the seconds per batch that each layer takes.

    A layer works on one batch at a time, and layers that only some workers may run need all of these workers' time.
    `at_once`: how many CPU workers can compute at the same time, if the cores are fewer than the workers. It is the
    tightest such bound for a crew as `crew` makes it, where of the workers of two layers one set holds the other, or
    they have none in common; for any other crew it still holds, but a tighter one may exist.
    """
    least = max(costs)
    who = [
        frozenset(number for number, one in enumerate(members) if layer in one.layers) for layer in range(len(costs))
    ]
    for workers in set(who):
        # Of layers that these workers, and nobody else, may run.
        work = sum(cost for cost, able in zip(costs, who, strict=True) if able <= workers)
        least = max(least, work / len(workers))
    cpu = {layer for member in members if member.device.type == "cpu" for layer in member.layers}
    return max(least, sum(costs[layer] for layer in cpu) / at_once)
