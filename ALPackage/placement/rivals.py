"""How long a batch takes back-propagation on many devices: 1F1B, zero bubble and DDP, simulated kindly.

What is assumed, beside what `scale` assumes of devices and links:
- A micro-batch of few rows is as efficient per row as a large one, and costs nothing of its own.
- What stages send each other is hidden behind their work as far as the link is fast enough.
- A stage's replicas average their gradients after the last micro-batch; as in AL nothing hides that. In DDP the
  backward pass does, all of it, and the whole network's gradients are averaged by all devices.
- Zero bubble has none at all, which no schedule reaches.
Memory is not looked at: DDP needs the whole network on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from .partition import partition
from .workload import Load, all_reduce


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of BP: layers per stage, replicas of the whole pipeline, micro-batches of each; seconds per batch."""

    sizes: tuple[int, ...]
    replicas: int
    micro: int
    seconds: float


def one_f_one_b(loads: Sequence[Load], sizes: Sequence[int], replicas: int, micro: int, speed: float) -> float:
    """Return the seconds per batch of 1F1B: `micro` steps of the slowest stage, and the fill and drain of the others.

    `replicas` pipelines divide the rows, and each its part into `micro` micro-batches. `speed`: bytes per second.
    """
    work, after, passing = _slowest(loads, sizes, replicas, speed)
    step = max(work, passing) / micro
    bubble = (len(sizes) - 1) * (work + 2 * passing) / micro
    return micro * step + bubble + after


def zero_bubble(loads: Sequence[Load], sizes: Sequence[int], replicas: int, speed: float) -> float:
    """Return the seconds per batch of a pipeline whose stages never wait for each other."""
    work, after, passing = _slowest(loads, sizes, replicas, speed)
    return max(work, passing) + after


def ddp(loads: Sequence[Load], devices: int, speed: float, rows: int) -> float:
    """Return the seconds per batch of data parallel training; more devices than rows find nothing to do."""
    used = min(devices, rows)
    forward, backward = sum(one.forward for one in loads) / used, sum(one.backward for one in loads) / used
    averaging = all_reduce(sum(one.weights for one in loads), used, speed)
    return forward + max(backward, averaging) + sum(one.update for one in loads)


def best_pipeline(
    loads: Sequence[Load], devices: int, speed: float, rows: int, *, least_rows: int = 8, bubble: bool = True
) -> Pipeline:
    """Return the fastest pipeline of at least two stages, of all numbers of stages; one stage on one device.

    Args:
        loads: Of the layers.
        devices: How many.
        speed: Bytes per second of a link.
        rows: Of a batch.
        least_rows: The fewest rows of a micro-batch; as many micro-batches as that allows are taken.
        bubble: False for `zero_bubble` instead of `one_f_one_b`.
    """
    found = []
    times = [one.work for one in loads]
    for stages in range(min(2, devices, len(loads)), min(devices, len(loads)) + 1):
        sizes = partition(times, stages)
        # A pipeline with fewer rows than a micro-batch has would leave devices without any.
        replicas = min(devices // len(sizes), max(1, rows // least_rows))
        micro = max(1, rows // replicas // least_rows)
        seconds = (
            one_f_one_b(loads, sizes, replicas, micro, speed) if bubble else zero_bubble(loads, sizes, replicas, speed)
        )
        found.append(Pipeline(tuple(sizes), replicas, micro, seconds))
    return min(found, key=lambda one: one.seconds)


def _slowest(loads: Sequence[Load], sizes: Sequence[int], replicas: int, speed: float) -> tuple[float, float, float]:
    """Return seconds per batch: the most work of a stage, the most for averaging and update, and the slowest link."""
    ends = list(accumulate(sizes))
    stages = [loads[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    work = max(sum(one.work for one in stage) for stage in stages) / replicas
    after = max(
        sum(one.update for one in stage) + all_reduce(sum(one.weights for one in stage), replicas, speed)
        for stage in stages
    )
    passing = max((loads[end - 1].sent for end in ends[:-1]), default=0.0) / replicas / speed
    return work, after, passing
