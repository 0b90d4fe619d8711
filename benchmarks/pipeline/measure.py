"""What every layer costs alone on one core, per batch: which cuts are worth a trial, and what can be expected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ALPackage.nested import tensors
from ALPackage.placement.workload import Load, Workload, written
from ALPackage.randomness import enter_stream
from models import adamw

from .timing import Job
from .workload import LR, Part, al_model, arguments, batch_size, bp_layers, make_batches

#: Seconds of a layer's forward pass, backward pass and update.
Times = tuple[float, float, float]


def layer_costs(job: Job) -> dict[str, Any]:
    """Return the median seconds per batch of every layer, by name, of both forms; and in parts, with bytes."""
    loads = {"bp": _bp_loads(job), "al": _al_loads(job)}
    costs = {form: {one.name: one.work + one.update for one in of_form} for form, of_form in loads.items()}
    workload = Workload(tuple(loads["al"]), tuple(loads["bp"]), batch_size(job["model"], job["size"]))
    return {**costs, "workload": written(workload)}


def _al_loads(job: Job) -> list[Load]:
    stack = al_model(job["model"], job["size"])
    batches = make_batches(job["model"], job["size"])
    times: list[list[Times]] = []
    sent: list[int] = []
    for step, (x, labels) in enumerate(islice(cycle(batches), job["warmup"] + job["batches"])):
        y, of_batch = stack.target(labels), []
        sent = []
        for name, layer in stack.items():
            enter_stream(layer, 0, name, step)
            clock = [time.perf_counter()]
            x, y = layer(x, y)
            clock.append(time.perf_counter())
            layer.backward()
            clock.append(time.perf_counter())
            layer.update()
            of_batch.append(_parts([*clock, time.perf_counter()]))
            sent.append(_bytes((x, y)))
        times.append(of_batch)
    weights = [_trained(layer) for layer in stack]
    return _loads(stack.names, times[job["warmup"] :], sent, weights)


def _bp_loads(job: Job) -> list[Load]:
    """Return the loads; the loss is part of the head."""
    named = bp_layers(job["model"], job["size"])
    parts = [Part([layer]) for _, layer in named]
    optimizers = [adamw(part.parameters(), lr=LR, weight_decay=0.0) for part in parts]
    batches = make_batches(job["model"], job["size"])
    found = [
        _layer_times(parts, optimizers, x, labels)
        for x, labels in islice(cycle(batches), job["warmup"] + job["batches"])
    ]
    weights = [_trained(part) for part in parts]
    return _loads([name for name, _ in named], [times for times, _ in found[job["warmup"] :]], found[-1][1], weights)


def _layer_times(
    parts: list[Part], optimizers: list[Any], features: Any, labels: Tensor
) -> tuple[list[Times], list[int]]:
    """Run one batch through the layers and back, cut off from each other; return times, and bytes handed on."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    forward: list[float] = []
    sent: list[int] = []
    x, others = arguments(features)
    for number, part in enumerate(parts):
        if number:
            x = x.detach().requires_grad_()
        inputs.append(x)
        start = time.perf_counter()
        x = part(x, **others)
        sent.append(_bytes(x))
        if number == len(parts) - 1:
            x = F.cross_entropy(x, labels)
        forward.append(time.perf_counter() - start)
        outputs.append(x)
    gradient: Tensor | None = None
    times: list[Times] = []
    for number in reversed(range(len(parts))):
        clock = [time.perf_counter()]
        torch.autograd.backward(outputs.pop(), gradient)
        clock.append(time.perf_counter())
        optimizers[number].step()
        optimizers[number].zero_grad(set_to_none=True)
        backward, update = clock[1] - clock[0], time.perf_counter() - clock[1]
        times.insert(0, (forward[number], backward, update))
        gradient = inputs.pop().grad
    return times, sent


def _loads(names: Sequence[str], times: list[list[Times]], sent: list[int], weights: list[int]) -> list[Load]:
    """Return the loads from the times of every layer in every batch; the last layer hands on nothing."""
    found = []
    for number, name in enumerate(names):
        forward, backward, update = (median(batch[number][part] for batch in times) for part in range(3))
        found.append(
            Load(name, forward, backward, update, sent[number] if number < len(names) - 1 else 0, weights[number])
        )
    return found


def _parts(clock: list[float]) -> Times:
    return clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]


def _trained(module: torch.nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in module.parameters() if one.requires_grad)


def _bytes(tree: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors(tree))
