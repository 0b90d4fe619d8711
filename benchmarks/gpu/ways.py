"""The ways to train that are compared: BP and AL through the same engine, so that they differ in nothing else."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import cycle, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import ALStack, make_schedule, set_device
from ALPackage.layer import LocalLayer
from benchmarks.memory.held import Held
from benchmarks.pipeline.workload import LR, VISION, al_model, batch_size, bp_layers, make_batches
from models import adamw

Way = dict[str, Any]
WAYS: dict[str, Way] = {
    "BP, eager": {"method": "bp"},
    "BP, graph": {"method": "bp", "graph": True},
    "BP, eager, bf16": {"method": "bp", "bf16": True},
    "BP, graph, bf16": {"method": "bp", "graph": True, "bf16": True},
    "AL, eager": {"method": "al"},
    "AL, eager, 4 streams": {"method": "al", "streams": 4},
    "AL, graph": {"method": "al", "graph": True},
    "AL, graph, 2 streams": {"method": "al", "graph": True, "streams": 2},
    "AL, graph, 3 streams": {"method": "al", "graph": True, "streams": 3},
    "AL, graph, 4 streams": {"method": "al", "graph": True, "streams": 4},
    "AL, eager, bf16": {"method": "al", "bf16": True},
    "AL, graph, 4 streams, bf16": {"method": "al", "graph": True, "streams": 4, "bf16": True},
}
MIB = 2**20


class WholeNetwork(LocalLayer):
    """A network that trains end to end, as the only layer of a stack: BP, with the engine's streams and graphs."""

    def __init__(self, layers: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.network = nn.ModuleDict(dict(layers))
        self.optimizer = adamw(self.parameters(), lr=LR, weight_decay=0.0)

    def compute(self, x: Any, y: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the logits, the labels and their cross-entropy."""
        logits = self.hidden(x)
        return logits, y, {"loss": F.cross_entropy(logits, y)}

    def hidden(self, x: Any) -> Tensor:
        """Return the logits."""
        for layer in self.network.values():
            x = layer(x)
        logits: Tensor = x
        return logits

    def readout(self, hidden: Tensor) -> Tensor:
        """Return the logits as they are."""
        return hidden


def build(model: str, method: str, size: str, device: torch.device) -> ALStack:
    """Return the model in its AL form, or in its BP form as a stack of one layer."""
    stack = al_model(model, size) if method == "al" else ALStack([WholeNetwork(bp_layers(model, size))])
    set_device(stack, [str(device)] * len(stack))
    if device.type == "cuda" and model in VISION:
        stack.to(memory_format=torch.channels_last)
    return stack.train()


def measure(model: str, way: Way, size: str, device: torch.device, steps: int) -> dict[str, Any]:
    """Train `steps` batches in one way, and, where the step is eager, a few more while the held bytes are counted.

    `launch_bound`: what is left of the time once the host has asked for everything is that in which the device was
    behind.
    """
    gc.collect()  # an earlier run's layers sit in reference cycles, and would count as this one's memory
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
    data = cycle(make_batches(model, size, device=device, count=4))
    stack = build(model, way["method"], size, device)
    streams = way.get("streams", 1)
    crew = {"streams_per_device": streams} if on_gpu else {"workers": min(streams, len(stack))}
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if way.get("bf16") else nullcontext()
    graph = "on" if way.get("graph") else "off"
    with autocast, make_schedule("continuous", stack, threads=1, seed=0, cuda_graph=graph, **crew) as schedule:
        first = 0

        def train(count: int) -> float:
            nonlocal first
            start = time.perf_counter()
            for _ in schedule.run(islice(data, count), first=first):
                first += 1
            launched = time.perf_counter() - start
            if on_gpu:
                torch.cuda.synchronize(device)
            return launched

        train(5)
        start = time.perf_counter()
        launched = train(steps)
        total = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) / MIB if on_gpu else None
        held = None
        if not way.get("graph"):  # a layer with hooks gets no graph
            counter = Held([*stack.parameters(), *stack.buffers()])
            for layer in stack:
                counter.watch(layer)
            train(4)
            held = counter.peak / MIB
    return {
        "samples_per_s": steps * batch_size(model, size) / total,
        "launch_bound": launched / total,
        "peak_mib": peak,
        "held_mib": held,
        "workers": len(schedule.usage()),
    }
