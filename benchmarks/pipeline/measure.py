"""What every layer costs alone on one core: the figures that the bounds and the cuts are made of."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import cycle, islice
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ALPackage import make_schedule
from ALPackage.stage.trace import Trace
from models import adamw

from .workload import BATCH, LR, WEIGHT_DECAY, Part, al_model, arguments, bp_layers, make_batches

Job = dict[str, Any]


def al_costs(job: Job) -> dict[str, Any]:
    """Return the median times of every AL layer in the sequential schedule; `backward` includes the update."""
    stack = al_model(job["model"], job["quick"])
    batches = make_batches(job["model"], job["quick"])
    trace = Trace()
    with make_schedule("sequential", stack, threads=1, seed=0, trace=trace) as schedule:
        for _ in schedule.run(islice(cycle(batches), job["warmup"] + job["batches"])):
            pass
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for span in trace.spans:
        if span.batch >= job["warmup"]:
            times[span.layer, span.phase].append(span.stop - span.start)
    return {
        "names": stack.names,
        "forward": [median(times[name, "forward"]) for name in stack.names],
        "backward": [median(times[name, "backward"]) for name in stack.names],
    }


def bp_costs(job: Job) -> dict[str, Any]:
    """Return the median times of every BP layer: forward and backward of a micro-batch by its size, and the update.

    The loss is part of the head. Gradients are accumulated over the micro-batches of a batch, as the schedules do.
    """
    named = bp_layers(job["model"], job["quick"])
    parts = [Part([layer]) for _, layer in named]
    optimizers = [adamw(part.parameters(), lr=LR, weight_decay=WEIGHT_DECAY) for part in parts]
    batches = make_batches(job["model"], job["quick"])
    sizes: dict[str, dict[str, list[float]]] = {}
    updates: list[list[float]] = [[] for _ in parts]
    for micro in job["micro"]:
        forward: list[list[float]] = [[] for _ in parts]
        backward: list[list[float]] = [[] for _ in parts]
        for number, (x, labels) in enumerate(islice(cycle(batches), job["warmup"] + job["batches"])):
            features, others = arguments(x)
            counted = number >= job["warmup"]
            for rows in torch.arange(BATCH).split(BATCH // micro):
                one = slice(int(rows[0]), int(rows[-1]) + 1)
                ahead, back = _layer_times(parts, features[one], {k: v[one] for k, v in others.items()}, labels[one])
                for index in range(len(parts) * counted):
                    forward[index].append(ahead[index])
                    backward[index].append(back[index])
            for index, optimizer in enumerate(optimizers):
                start = time.perf_counter()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if counted:
                    updates[index].append(time.perf_counter() - start)
        sizes[str(BATCH // micro)] = {
            "forward": [median(times) for times in forward],
            "backward": [median(times) for times in backward],
        }
    return {"names": [name for name, _ in named], "sizes": sizes, "update": [median(times) for times in updates]}


def _layer_times(
    parts: list[Part], x: Tensor, others: dict[str, Tensor], labels: Tensor
) -> tuple[list[float], list[float]]:
    """Run one micro-batch through the layers and back, cut off from each other, and return the times of each."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    ahead: list[float] = []
    back = [0.0] * len(parts)
    for number, part in enumerate(parts):
        if number:
            x = x.detach().requires_grad_()
        inputs.append(x)
        start = time.perf_counter()
        x = part(x, **others)
        if number == len(parts) - 1:
            x = F.cross_entropy(x, labels)
        ahead.append(time.perf_counter() - start)
        outputs.append(x)
    gradient: Tensor | None = None
    for number in reversed(range(len(parts))):
        start = time.perf_counter()
        torch.autograd.backward(outputs.pop(), gradient)
        back[number] = time.perf_counter() - start
        gradient = inputs.pop().grad
    return ahead, back
