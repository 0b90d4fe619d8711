"""How long a run takes under each schedule, from the layers' costs alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..stage.crew import Member
from .cost import LayerCost

#: What is left of a task when it counts as done, as a share of a second: sums of floats are not exact.
NOTHING = 1e-12


def simulate(
    schedule: str,
    costs: Sequence[LayerCost],
    workers: int | Sequence[Member],
    batches: int,
    *,
    depth: int = 2,
    overhead: float = 0.0,
    loader: float = 0.0,
    at_once: float = math.inf,
) -> float:
    """Return the seconds that `batches` batches take, fill and drain included.

    Args:
        schedule: "sequential", "al-fm" or "continuous".
        costs: Of the layers, first to last.
        workers: Of the continuous schedule: a crew, or how many workers share all layers.
        batches: How many.
        depth: Batches that may wait before a layer.
        overhead: Seconds per batch and layer that the schedule itself takes.
        loader: Seconds that the caller needs to make a batch, beside the workers.
        at_once: How many CPU threads, workers and the loader together, have a core; more share these.

    Raises:
        ValueError: For another schedule, and for layers that nobody may run.
    """
    if isinstance(workers, int):
        every = tuple(range(len(costs)))
        workers = [Member(f"cpu:{number}", torch.device("cpu"), every) for number in range(workers)]
    if {layer for member in workers for layer in member.layers} != set(range(len(costs))):
        raise ValueError(f"simulate: the workers do not fit {len(costs)} layers: each needs one that may run it")
    work = sum(cost.total + overhead for cost in costs)
    if schedule == "sequential":
        return batches * (work + loader)
    if schedule == "al-fm":
        return batches * (max(_joined(costs), work / at_once) + loader)
    if schedule == "continuous":
        return _Run(costs, workers, batches, depth, overhead, loader, at_once).seconds()
    raise ValueError(f"simulate: got {schedule!r}; expected sequential, al-fm or continuous")


def _joined(costs: Sequence[LayerCost]) -> float:
    """Return the time of one batch: forward passes in a row, each backward pass beside the forward passes above it."""
    clock, end = 0.0, 0.0
    for cost in costs:
        clock += cost.forward
        end = max(end, clock + cost.backward)
    return end


@dataclass(eq=False)
class _Task:
    """What a thread does at the moment: the part of a layer's batch before or after the hand-over, or loading."""

    left: float
    worker: int | None
    """None: the loader."""
    layer: int = 0
    handed_on: bool = False


class _Run:
    """The continuous schedule, event by event.

    A layer is ready if it is not at work, a batch waits before it, and there is room behind it. A free worker takes the
    first ready layer of those that it ran last, else the first ready one that it may run. It hands on after the
    forward pass.
    """

    def __init__(
        self,
        costs: Sequence[LayerCost],
        members: Sequence[Member],
        batches: int,
        depth: int,
        overhead: float,
        loader: float,
        at_once: float,
    ) -> None:
        self.members, self.batches, self.depth, self.loader, self.at_once = members, batches, depth, loader, at_once
        homes = [next(member.device for member in members if layer in member.layers) for layer in range(len(costs))]
        received = [
            before.hand_over if there != here else 0.0
            for before, there, here in zip(costs, homes, homes[1:], strict=False)
        ]
        before = [cost.forward + overhead + more for cost, more in zip(costs, [0.0, *received], strict=True)]
        self.before, self.after = before, [cost.backward for cost in costs]
        self.last = len(costs) - 1
        self.waiting = [0] * len(costs)
        #: By layer, whether a batch is on its way there.
        self.coming = [False] * len(costs)
        self.at_work = [False] * len(costs)
        self.ran: list[int | None] = [None] * len(costs)
        self.free = list(range(len(members)))
        self.tasks: list[_Task] = []
        self.loaded = 0
        if not loader:
            self.waiting[0] = self.loaded = batches

    def seconds(self) -> float:
        """Return when the last batch is done."""
        clock = 0.0
        self._begin()
        while self.tasks:
            rates = self._rates()
            step = min(task.left / rate for task, rate in zip(self.tasks, rates, strict=True))
            clock += step
            for task, rate in zip(self.tasks, rates, strict=True):
                task.left -= step * rate
            for task in [task for task in self.tasks if task.left <= NOTHING]:
                self._end(task)
            self._begin()
        return clock

    def _rates(self) -> list[float]:
        """Return how fast every task goes on: threads of the CPU share the cores."""
        on_cpu = [task.worker is None or self.members[task.worker].device.type == "cpu" for task in self.tasks]
        share = min(1.0, self.at_once / max(1, sum(on_cpu)))
        return [share if cpu else 1.0 for cpu in on_cpu]

    def _end(self, task: _Task) -> None:
        """Do what follows when a part of a task is over."""
        if task.worker is None:
            self.coming[0] = False
            self.waiting[0] += 1
        elif not task.handed_on:
            if task.layer < self.last:
                self.coming[task.layer + 1] = False
                self.waiting[task.layer + 1] += 1
            task.left, task.handed_on = self.after[task.layer], True
            return
        else:
            self.at_work[task.layer] = False
            self.free.append(task.worker)
        self.tasks.remove(task)

    def _begin(self) -> None:
        """Give every free thread something to do, as far as there is something."""
        if self.loaded < self.batches and not self.coming[0] and self._room(0):
            self.loaded += 1
            self.coming[0] = True
            self.tasks.append(_Task(self.loader, None))
        # Those that ran a ready layer last choose before others could take it from them.
        for own in (True, False):
            for worker in sorted(self.free):
                layer = self._choice(worker, own)
                if layer is not None:
                    self._take(worker, layer)

    def _choice(self, worker: int, own: bool) -> int | None:
        """Return the first ready layer that the worker may run; `own`: that it ran last."""
        for layer in self.members[worker].layers:
            if (self.ran[layer] == worker or not own) and self._ready(layer):
                return layer
        return None

    def _ready(self, layer: int) -> bool:
        return not self.at_work[layer] and self.waiting[layer] > 0 and (layer == self.last or self._room(layer + 1))

    def _room(self, layer: int) -> bool:
        return self.waiting[layer] + self.coming[layer] < self.depth

    def _take(self, worker: int, layer: int) -> None:
        self.free.remove(worker)
        self.waiting[layer] -= 1
        self.at_work[layer] = True
        self.ran[layer] = worker
        if layer < self.last:
            self.coming[layer + 1] = True
        self.tasks.append(_Task(self.before[layer], worker, layer))
