"""One fresh process of a measurement: `python -m benchmarks.networks.worker <job as JSON>`, one line of JSON out."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise, repeat
from typing import Any

from benchmarks.launch import memory_mib

Job = dict[str, Any]
#: Of the networks for images, and of those for texts.
CLASSES = {True: 1000, False: 4}
TOKENS = 128
LR = 1e-4


def main() -> None:
    """Do the job and print what came of it."""
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, job["cores"])
    print(json.dumps(measure(job)), flush=True)


def measure(job: Job) -> dict[str, Any]:
    """Train a few steps against the clock; every step is one batch, the same each time."""
    import torch

    from .families import FAMILIES

    torch.set_num_threads(job.get("threads", 1))
    torch.manual_seed(0)
    family = FAMILIES[job["network"]]
    importlib.import_module(family.library)
    batch = make_batch(family, job["batch"], small=job["small"])
    classes = CLASSES[family.side > 0]
    base = memory_mib("VmRSS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which operations in place have become ordinary ones
        blocks = family.blocks(classes, job["small"])
        form = _back_propagation if job["contestant"].startswith("bp") else _associated_learning
        seconds, network = form(job, blocks, classes, batch)
    return {
        "step_s": seconds,
        "peak_mib": memory_mib("VmHWM") - base,
        "base_mib": base,
        "parameters": sum(one.numel() for layer in network.layers.values() for one in layer.parameters()),
        "layers": list(network.layers),
        "blocks": [len(one) for one in network.blocks.values()],
        "flops": list(network.flops.values()),
    }


def make_batch(family: Any, size: int, *, small: bool) -> tuple[Any, Any]:
    """Return random images, or random words with lengths from half to all of the positions; and labels."""
    import torch

    from .families import WORDS

    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES[family.side > 0], (size,), generator=draw)
    if family.side:
        side = family.small_side if small else family.side
        return torch.randn(size, 3, side, side, generator=draw), labels
    positions = 8 if small else TOKENS
    ids = torch.randint(1, WORDS if small else family.words, (size, positions), generator=draw)
    return (ids, torch.randint(positions // 2, positions + 1, (size,), generator=draw)), labels


def _associated_learning(job: Job, blocks: Any, classes: int, batch: Any) -> tuple[list[float], Any]:
    from ALPackage import make_schedule, to_al

    stack = to_al(blocks, classes, example=_two(batch[0]), layers=job["layers"], copy=False, lr=LR)
    options: dict[str, Any] = {"threads": 1, "seed": 0, "cuda_graph": "off"}
    if job["contestant"] == "al-continuous":
        options["workers"] = 2
    with make_schedule(job["contestant"].removeprefix("al-"), stack, **options) as schedule:
        for _ in schedule.run(repeat(batch, job["warmup"])):
            pass
        return _timed(schedule.run(repeat(batch, job["steps"]), first=job["warmup"])), stack.network


def _back_propagation(job: Job, blocks: Any, classes: int, batch: Any) -> tuple[list[float], Any]:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from ALPackage.bridges import bridge_to
    from ALPackage.network import read_network

    network = read_network(blocks, classes, _two(batch[0]), job["layers"], copied=False)
    head = network.head or bridge_to(list(network.outputs.values())[-1], "linear")(classes)
    model = nn.Sequential(*network.layers.values(), head)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def train(steps: int) -> Iterator[None]:
        for x, labels in repeat(batch, steps):
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield

    for _ in train(job["warmup"]):
        pass
    return _timed(train(job["steps"])), network


def _timed(steps: Iterator[Any]) -> list[float]:
    """Return the seconds from the start, or from one step's end, to the next."""
    times = [time.perf_counter()]
    for _ in steps:
        times.append(time.perf_counter())
    return [end - start for start, end in pairwise(times)]


def _two(x: Any) -> Any:
    """Return the first two samples: an example."""
    return tuple(one[:2] for one in x) if isinstance(x, tuple) else x[:2]


if __name__ == "__main__":
    main()
