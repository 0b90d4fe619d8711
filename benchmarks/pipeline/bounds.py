"""What the costs of the layers and the order of a schedule imply: simulations that know no hand-over and no noise.

A bound is the time that a schedule takes if every operation costs what it costs alone on one idle core and nothing is
lost between the operations. Pure functions; all times are in one unit of the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = [
    "Cost",
    "ceiling",
    "continuous",
    "cuts",
    "gpipe_order",
    "joined",
    "joined_on_devices",
    "one_f_one_b_order",
    "pipelined",
]

Order = Callable[[int, int, int], list[tuple[str, int]]]
EPSILON = 1e-9


@dataclass(frozen=True)
class Cost:
    """The cost of a layer or a stage: forward and backward of one (micro-)batch, and the update of one batch."""

    forward: float
    backward: float
    update: float = 0.0

    @property
    def total(self) -> float:
        """Everything once."""
        return self.forward + self.backward + self.update

    @staticmethod
    def sum(costs: Sequence[Cost]) -> Cost:
        """Return the cost of a stage that is made of these layers."""
        return Cost(sum(c.forward for c in costs), sum(c.backward for c in costs), sum(c.update for c in costs))


def cuts(layers: int, stages: int = 2) -> list[list[int]]:
    """Return every way to cut `layers` layers into contiguous stages, as layers per stage."""
    if stages == 1:
        return [[layers]] if layers else []
    return [[first, *rest] for first in range(1, layers) for rest in cuts(layers - first, stages - 1)]


def staged(costs: Sequence[Cost], cut: Sequence[int]) -> list[list[Cost]]:
    """Return the layers' costs by stage."""
    ends = list(accumulate(cut))
    return [list(costs[end - size : end]) for size, end in zip(cut, ends, strict=True)]


def ceiling(costs: Sequence[Cost], cut: Sequence[int]) -> float:
    """Return the speed-up over one device that a cut allows: all stages over the busiest."""
    totals = [Cost.sum(stage).total for stage in staged(costs, cut)]
    return sum(totals) / max(totals)


def gpipe_order(stage: int, stages: int, micro: int) -> list[tuple[str, int]]:
    """Return GPipe's order of a stage: all forwards, then all backwards."""
    return [("F", i) for i in range(micro)] + [("B", i) for i in range(micro)]


def one_f_one_b_order(stage: int, stages: int, micro: int) -> list[tuple[str, int]]:
    """Return 1F1B's order of a stage: some forwards to fill, then one backward and one forward in turns."""
    ahead = min(micro, stages - stage)
    order = [("F", i) for i in range(ahead)]
    for i in range(micro):
        order.append(("B", i))
        if ahead + i < micro:
            order.append(("F", ahead + i))
    return order


def pipelined(costs: Sequence[Cost], order: Order, micro: int, batches: int) -> float:
    """Return the time for `batches` batches of `micro` micro-batches; forward and backward costs are per micro-batch.

    Every stage works through its order and then updates. A forward waits for the stage before, a backward for the
    stage after; nothing waits for a whole batch of another stage, so one stage updates while another still works.
    """
    stages = len(costs)
    programs = [_program(order(stage, stages, micro), batches) for stage in range(stages)]
    waiting = [next(program) for program in programs]
    clocks = [0.0] * stages
    done: dict[tuple[int, str, int, int], float] = {}
    open_stages = set(range(stages))
    while open_stages:
        moved = False
        for stage in sorted(open_stages):
            kind, batch, number = waiting[stage]
            other = {"F": stage - 1, "B": stage + 1, "U": -1}[kind]
            needed = (other, kind, batch, number)
            if 0 <= other < stages and needed not in done:
                continue
            cost = {"F": costs[stage].forward, "B": costs[stage].backward, "U": costs[stage].update}[kind]
            clocks[stage] = max(clocks[stage], done.get(needed, 0.0)) + cost
            done[stage, kind, batch, number] = clocks[stage]
            moved = True
            following = next(programs[stage], None)
            if following is None:
                open_stages.discard(stage)
            else:
                waiting[stage] = following
        if not moved:
            raise ValueError("pipelined: the orders of the stages wait for each other")
    return max(clocks)


def _program(order: Sequence[tuple[str, int]], batches: int) -> Iterator[tuple[str, int, int]]:
    for batch in range(batches):
        yield from ((kind, batch, number) for kind, number in order)
        yield "U", batch, 0


def continuous(stages: Sequence[Sequence[Cost]], batches: int) -> float:
    """Return the time for `batches` batches in the continuous pipeline, fill and drain included.

    A stage trains its layers one after another; it hands a batch on before its last layer's backward and update.
    """
    ends = [0.0] * batches
    handed = [0.0] * batches
    for layers in stages:
        tail = layers[-1].backward + layers[-1].update
        total = sum(layer.total for layer in layers)
        free = 0.0
        for number in range(batches):
            start = max(free, handed[number])
            free = start + total
            handed[number] = free - tail
            ends[number] = max(ends[number], free)
    return max(ends)


def joined_on_devices(layers: Sequence[Cost], cut: Sequence[int]) -> float:
    """Return the least time of one batch where all forwards run in a row and every layer's work is tied to a device.

    A device can begin when the forwards of the devices before are done, and then has all of its own work to do; least
    if it runs its forwards first, as the next device waits for them.
    """
    clock, end = 0.0, 0.0
    for stage in map(Cost.sum, staged(layers, cut)):
        end = max(end, clock + stage.total)
        clock += stage.forward
    return end


def joined(layers: Sequence[Cost], devices: int = 2) -> float:
    """Return the least time of one batch where one thread runs all forwards and every layer has a thread for the rest.

    The threads may share the devices in any way: highest level first with sharing among equals, which is optimal for
    two devices (Muntz & Coffman, IEEE Transactions on Computers 18, 1969).
    """
    tails = [layer.backward + layer.update for layer in layers]
    levels = [0.0] * (len(layers) + 1)  # the longest path from the start of a layer's forward to the end
    for number in reversed(range(len(layers))):
        levels[number] = layers[number].forward + max(tails[number], levels[number + 1])
    at, remaining = 0, layers[0].forward
    released: dict[int, float] = {}
    clock = 0.0
    while at < len(layers) or released:
        tasks = {number: (left, left) for number, left in released.items()}
        if at < len(layers):
            tasks[-1] = (remaining, remaining + levels[at] - layers[at].forward)
        rates = _rates({task: level for task, (_, level) in tasks.items()}, devices)
        steps = [left / rates[task] for task, (left, _) in tasks.items() if rates[task] > 0]
        steps += [
            (tasks[a][1] - tasks[b][1]) / (rates[a] - rates[b])
            for a in tasks
            for b in tasks
            if tasks[a][1] > tasks[b][1] + EPSILON and rates[a] > rates[b]
        ]
        step = min(steps)
        clock += step
        for number in list(released):
            released[number] -= step * rates[number]
            if released[number] <= EPSILON:
                del released[number]
        if at < len(layers):
            remaining -= step * rates[-1]
            if remaining <= EPSILON:
                released[at] = tails[at]
                at += 1
                remaining = layers[at].forward if at < len(layers) else 0.0
    return clock


def _rates(levels: dict[int, float], devices: int) -> dict[int, float]:
    """Return each task's share of a device: the highest level first, equal levels alike."""
    rates: dict[int, float] = {}
    free = float(devices)
    for level in sorted(levels.values(), reverse=True):
        equal = [task for task, own in levels.items() if abs(own - level) <= EPSILON and task not in rates]
        share = min(1.0, free / len(equal)) if equal else 0.0
        rates.update(dict.fromkeys(equal, share))
        free -= share * len(equal)
    return rates
