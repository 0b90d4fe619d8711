"""How long an epoch of a method will take, from some seconds of it on a model that is thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from ALPackage import Snapshot
from ALPackage.placement import simulate
from data.batches import Batches

from ..config.spec import RunSpec
from ..trainers.trainer import Trainer
from .make_trainer import make_trainer
from .memory import PeakMemory
from .placement import Placement
from .ranks import Ranks
from .tasks import LoadedTask, training_batches

#: Seconds of training that are measured, unless the epoch is shorter.
BUDGET = 6.0
#: Batches that are not measured, and the fewest that are.
WARM_UP, LEAST = 3, 6
#: How often a short epoch is measured, of which the median counts.
MOST_RUNS = 5
#: A simulation of more batches would not say anything else about the time of a batch.
MOST_SIMULATED = 400


@dataclass(frozen=True)
class Expectation:
    """What an epoch of training will take, evaluation not counted, and what was measured to say so."""

    seconds: float
    """Per epoch: loading, augmentation, training, and the copies that checkpoints take."""
    batches: int
    """Of an epoch."""
    measured: int
    """Of those, the ones that were run."""
    loading: float
    """Seconds that a batch takes to load and augment, without training."""
    snapshot: float
    """Seconds that the copy for a checkpoint takes."""
    peak_mb: float | None
    """Peak memory while measuring, as the results have it."""


def expect(
    spec: RunSpec, task: LoadedTask, placement: Placement | None, devices: Sequence[str], ranks: Ranks | None = None
) -> Expectation:
    """Measure the first batches of an epoch, and return what all of it will take. `devices`: those of the layers.

    The learning rate is 0: the work is the same, and no weight moves.
    """
    seed = spec.seeds[0]
    with PeakMemory(devices) as memory, make_trainer(spec, task, placement, seed, None, ranks) as trainer:

        def epoch(number: int) -> Batches:
            return training_batches(task, trainer.devices[0], seed=seed, epoch=number)

        trainer.prepare(next(iter(epoch(1))))
        snapshot = _snapshot_seconds(spec, trainer, epoch)
        loading = _loading_seconds(epoch(2))
        whole = epoch(1)
        pilot = _train(trainer, islice(epoch(2), WARM_UP)) / min(WARM_UP, len(whole))
        measured = min(len(whole), max(LEAST, round(BUDGET / max(pilot, 1e-9))))
        took: list[float] = []
        while sum(took) < BUDGET / 2 and len(took) < MOST_RUNS:
            took.append(_train(trainer, islice(whole, measured)))
        sizes = [stop - start for start, stop in whole.bounds]
        # What more batches take is said by the simulation, which knows about filling and draining.
        seconds = statistics.median(took)
        if measured < len(sizes):
            parts = sum(sizes) / sizes[0]  # the last batch may be a part of one
            seconds *= _simulated(spec, placement, parts, loading) / _simulated(spec, placement, measured, loading)
        every = spec.config.checkpoint_every
        within = len(sizes) // every if every and spec.config.checkpoint_keep else 0
        copies = int(bool(spec.config.checkpoint_keep) or spec.config.keep_best) + within
        seconds += copies * snapshot
    return Expectation(seconds, len(sizes), measured, loading, snapshot, memory.mb)


def _simulated(spec: RunSpec, placement: Placement | None, batches: float, loading: float) -> float:
    """Return what so many batches take by the layers' costs, or in units of one batch where there are none."""
    plan = placement.plan if placement else None
    if plan is None:
        return batches
    beyond = max(0, int(batches) - MOST_SIMULATED)
    short = int(batches) - beyond

    def after(count: int) -> float:
        at_once = max(1.0, plan.at_once)
        return simulate(spec.config.schedule, plan.shares, plan.workers, count, loader=loading, at_once=at_once)

    whole, half = after(short), after(max(1, short // 2))
    # Once the pipeline is full, every batch takes as long as the others.
    each = (whole - half) / (short - short // 2) if short > 1 else whole
    return whole + each * (batches - short)


def _train(trainer: Trainer, batches: Iterator[tuple[Any, Tensor] | Snapshot]) -> float:
    """Train on the batches and return the seconds that it took, as the results count them."""
    return trainer.train_epoch(batches, lambda step: 0.0, lambda losses: None)[1]


def _snapshot_seconds(spec: RunSpec, trainer: Trainer, epoch: Callable[[int], Batches]) -> float:
    """Return what a checkpoint adds to the time of a batch: the copy of the state, and the look at its numbers."""
    if not spec.config.checkpoint_keep and not spec.config.keep_best:
        return 0.0
    batch = next(iter(epoch(2)))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):
        if sum(map(sum, seconds.values())) > BUDGET / 2:
            break
        for copied, times in seconds.items():
            items: list[tuple[Any, Tensor] | Snapshot] = [batch]
            if copied:
                items.append(Snapshot(trainer.check))
            times.append(_train(trainer, iter(items)))
    return max(0.0, min(seconds[True]) - min(seconds[False]))


def _loading_seconds(batches: Batches) -> float:
    """Return the seconds per batch of the loader alone."""
    started = time.perf_counter()
    count = sum(1 for _ in islice(batches, 2 * LEAST))
    return (time.perf_counter() - started) / count
