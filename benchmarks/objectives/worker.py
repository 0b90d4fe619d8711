"""One fresh process of a measurement: `python -m benchmarks.objectives.worker <job as JSON>`, with a line of JSON out.

On one core it counts the operations of a step and what autograd holds; on two it takes the time of a step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from torch import nn

from benchmarks.memory.held import Held

from .work import count_flops


@dataclass(frozen=True)
class Contestant:
    """A network with a method to train it."""

    model: nn.Module
    train: Callable[[int], None]
    """Trains a number of batches as fast as it can."""
    step: Callable[[Held], None]
    """Trains one on this thread, and has what autograd holds counted."""


def main() -> None:
    """Do the job and print what came of it."""
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, job["cores"])
    print(json.dumps(measure(job)), flush=True)


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of a step with all cores, or a step's operations and the MiB that autograd held at most."""
    contestant = _bp(job) if job["method"] == "bp" else _local(job)
    contestant.train(job["warmup"])
    if job["figure"] == "step_s":
        start = time.perf_counter()
        contestant.train(job["batches"])
        return {"step_s": (time.perf_counter() - start) / job["batches"]}
    held = Held([*contestant.model.parameters(), *contestant.model.buffers()])
    return {"flops": count_flops(lambda: contestant.step(held)), "held_mib": held.peak / 2**20}


def _local(job: dict[str, Any]) -> Contestant:
    import torch

    from ALPackage import make_schedule
    from benchmarks.pipeline.workload import local_model, make_batches

    torch.set_num_threads(1)
    stack = local_model(job["model"], job["size"], job["method"])
    batches = make_batches(job["model"], job["size"])
    schedule = make_schedule("continuous", stack, threads=1, seed=0, workers=len(job["cores"]))
    stream, done = cycle(batches), 0

    def train(steps: int) -> None:
        nonlocal done
        for _ in schedule.run(islice(stream, steps), first=done):
            done += 1

    def step(held: Held) -> None:
        x, y = batches[0][0], stack.target(batches[0][1])
        for layer in stack:  # each drops what it holds before the next one begins
            with held.count():
                x, y = layer(x, y)
            layer.backward_and_update()

    return Contestant(stack, train, step)


def _bp(job: dict[str, Any]) -> Contestant:
    import torch
    import torch.nn.functional as F

    from benchmarks.pipeline.workload import LR, Part, arguments, bp_layers, make_batches
    from models import adamw

    torch.set_num_threads(len(job["cores"]))
    model = Part([layer for _, layer in bp_layers(job["model"], job["size"])])
    optimizer = adamw(model.parameters(), lr=LR, weight_decay=0.0)
    batches = make_batches(job["model"], job["size"])
    stream = cycle(batches)

    def one(batch: Any) -> None:
        x, labels = batch
        features, others = arguments(x)
        F.cross_entropy(model(features, **others), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def train(steps: int) -> None:
        for batch in islice(stream, steps):
            one(batch)

    def step(held: Held) -> None:
        with held.count():
            one(batches[0])

    return Contestant(model, train, step)


if __name__ == "__main__":
    main()
