"""What every layer costs alone on one core, per batch: which cuts are worth a trial, and what can be expected."""

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
from ALPackage.nested import tensors
from ALPackage.stage.trace import Trace
from models import adamw

from .workload import LR, Part, al_model, arguments, bp_layers, make_batches

Job = dict[str, Any]


def layer_costs(job: Job) -> dict[str, Any]:
    """Return the median seconds per batch of every layer, by name, of both forms, and the bytes that it hands on."""
    return {"bp": _bp_costs(job), "al": _al_costs(job), "sent": {"bp": _bp_sent(job), "al": _al_sent(job)}}


def _al_sent(job: Job) -> dict[str, int]:
    stack = al_model(job["model"], job["size"])
    x, labels = make_batches(job["model"], job["size"], count=1)[0]
    y, found = stack.target(labels), {}
    for name, layer in stack.items():
        x, y = layer(x, y)
        layer.discard()
        found[name] = _bytes((x, y))
    return found


@torch.no_grad()
def _bp_sent(job: Job) -> dict[str, int]:
    x, others = arguments(make_batches(job["model"], job["size"], count=1)[0][0])
    found = {}
    for name, layer in bp_layers(job["model"], job["size"]):
        x = Part([layer])(x, **others)
        found[name] = _bytes(x)
    return found


def _bytes(tree: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors(tree))


def _al_costs(job: Job) -> dict[str, float]:
    stack = al_model(job["model"], job["size"])
    batches = make_batches(job["model"], job["size"])
    trace = Trace()
    with make_schedule("sequential", stack, threads=1, seed=0, trace=trace) as schedule:
        for _ in schedule.run(islice(cycle(batches), job["warmup"] + job["batches"])):
            pass
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for span in trace.spans:
        if span.batch >= job["warmup"]:
            times[span.layer, span.phase].append(span.stop - span.start)
    return {name: median(times[name, "forward"]) + median(times[name, "backward"]) for name in stack.names}


def _bp_costs(job: Job) -> dict[str, float]:
    """Return the times of forward, backward and update; the loss is part of the head."""
    named = bp_layers(job["model"], job["size"])
    parts = [Part([layer]) for _, layer in named]
    optimizers = [adamw(part.parameters(), lr=LR, weight_decay=0.0) for part in parts]
    batches = make_batches(job["model"], job["size"])
    times = [
        _layer_times(parts, optimizers, x, labels)
        for x, labels in islice(cycle(batches), job["warmup"] + job["batches"])
    ][job["warmup"] :]
    return {name: median(batch[number] for batch in times) for number, (name, _) in enumerate(named)}


def _layer_times(parts: list[Part], optimizers: list[Any], features: Any, labels: Tensor) -> list[float]:
    """Run one batch through the layers and back, cut off from each other, and return the time of each."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    times = []
    x, others = arguments(features)
    for number, part in enumerate(parts):
        if number:
            x = x.detach().requires_grad_()
        inputs.append(x)
        start = time.perf_counter()
        x = part(x, **others)
        if number == len(parts) - 1:
            x = F.cross_entropy(x, labels)
        times.append(time.perf_counter() - start)
        outputs.append(x)
    gradient: Tensor | None = None
    for number in reversed(range(len(parts))):
        start = time.perf_counter()
        torch.autograd.backward(outputs.pop(), gradient)
        optimizers[number].step()
        optimizers[number].zero_grad(set_to_none=True)
        times[number] += time.perf_counter() - start
        gradient = inputs.pop().grad
    return times
