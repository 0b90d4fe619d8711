"""One fresh process of a measurement: `python -m benchmarks.memory.worker <job as JSON>`, with one line of JSON out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import cycle, islice
from typing import Any

from benchmarks.launch import memory_mib

Job = dict[str, Any]
MIB = 2**20


def main() -> None:
    """Do the job and print what came of it."""
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, job["cores"])
    print(json.dumps(measure(job)), flush=True)


def measure(job: Job) -> dict[str, Any]:
    """Train some batches against the clock, then some more while what autograd holds is counted."""
    import torch

    torch.set_num_threads(1)
    device = torch.device(job["device"])
    base = memory_mib("VmRSS")
    with contestant(job, device) as (train, count):
        train(job["warmup"])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        train(job["batches"])
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else memory_mib("VmHWM") - base
        held = count()
        train(job["batches"])
    return {"held_mib": held.peak / MIB, "peak_mib": peak, "base_mib": base, "step_s": seconds / job["batches"]}


@contextmanager
def contestant(job: Job, device: Any) -> Iterator[tuple[Callable[[int], None], Callable[[], Any]]]:
    """Yield two functions: one trains a number of batches, one begins to count what autograd holds meanwhile."""
    import torch

    from ALPackage import make_schedule, set_device
    from benchmarks.pipeline.workload import al_model, make_batches

    from .held import Held

    batches = cycle(make_batches(job["model"], job["size"], device=device))
    if job["contestant"] in ("bp", "bp-checkpoint"):
        yield _back_propagation(job, device, batches)
        return
    stack = al_model(job["model"], job["size"], **job["keys"])
    set_device(stack, [str(device)] * len(stack))
    options: dict[str, Any] = {"cuda_graph": "off", "threads": 1, "seed": 0}
    if job["contestant"] == "al-continuous":
        options["workers" if device.type == "cpu" else "streams_per_device"] = 2
    with make_schedule(job["contestant"].removeprefix("al-"), stack, **options) as schedule:
        done = 0

        def train(count: int) -> None:
            nonlocal done
            for _ in schedule.run(islice(batches, count), first=done):
                done += 1
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        def count() -> Held:
            held = Held([*stack.parameters(), *stack.buffers()])
            for layer in stack:
                held.watch(layer)
            return held

        yield train, count


def _back_propagation(job: Job, device: Any, batches: Any) -> tuple[Callable[[int], None], Callable[[], Any]]:
    import torch
    import torch.nn.functional as F
    from torch.utils.checkpoint import checkpoint

    from benchmarks.pipeline.workload import LR, Part, after, arguments, bp_layers
    from models import adamw

    from .held import Held

    model = Part([layer for _, layer in bp_layers(job["model"], job["size"], **job["keys"])]).to(device)
    optimizer = adamw(model.parameters(), lr=LR, weight_decay=0.0)
    held: list[Held] = []

    def forward(x: Any, lengths: Any = None) -> Any:
        if job["contestant"] == "bp":
            return model(x, lengths)
        counted: dict[str, Any] = {"context_fn": held[0].contexts} if held else {}
        for layer in model.layers:
            x = checkpoint(after, layer, x, lengths, use_reentrant=False, **counted)
        return x

    def train(count: int) -> None:
        for x, labels in islice(batches, count):
            features, others = arguments(x)
            with held[0].count() if held else nullcontext():
                loss = F.cross_entropy(forward(features, **others), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            del loss
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def count() -> Held:
        held.append(Held([*model.parameters(), *model.buffers()]))
        return held[0]

    return train, count


if __name__ == "__main__":
    main()
