"""What a layer costs per batch, measured: forward, backward with update, the hand-over of its output, and memory."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import StageError
from ..layer import LocalLayer
from ..nested import tensors, to_device
from ..randomness import enter_stream
from ..stack import ALStack
from ..stage.threads import Autocast, IntraOpThreads
from ..stage.transfer import SLOTS

#: Steps of a layer that are not measured, and the fewest that are.
WARM_UP, LEAST = 2, 2
#: Batches of a layer's output that may exist at once: one in work and those that wait in the channel.
HELD = 3


@dataclass(frozen=True)
class LayerCost:
    """The cost of a layer: s per batch, and bytes while it trains."""

    name: str
    forward: float
    backward: float
    """With the update."""
    bytes: int = 0
    hand_over: float = 0.0
    """Seconds for which another device is busy receiving a batch of what the layer hands on; 0 on one device."""
    sent: int = 0
    """Bytes per batch that the layer hands on."""
    gradients: int = 0
    """Bytes per batch that replicas of the layer average."""

    @property
    def total(self) -> float:
        """Seconds per batch of its own work."""
        return self.forward + self.backward


def copy_time(value: Any, device: torch.device, repeats: int = 5) -> float:
    """Return the seconds that a copy of `value`, such as (x, y), to `device` takes; 0 where it is there."""
    there = {tensor.device for tensor in tensors(value)} | {device}
    if len(there) == 1 or all(one.type == "cpu" for one in there):
        return 0.0
    seconds = []
    for _ in range(1 + repeats):  # the first one opens the way between the two
        for one in there:
            _synchronize(one)
        started = time.perf_counter()
        to_device(value, device)
        for one in there:
            _synchronize(one)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def measure(
    stack: ALStack,
    batch: tuple[Any, Any],
    *,
    threads: int,
    devices: Sequence[torch.device] | None = None,
    receivers: Sequence[torch.device] | None = None,
    copy_time: Callable[[Any, torch.device], float] = copy_time,
    seed: int = 0,
    repeats: int = 15,
    budget: float = 4.0,
) -> list[LayerCost]:
    """Return what every layer of `stack` costs on `batch`, (x, y) as the loader yields it, under the caller's autocast.

    A copy of one layer at a time takes WARM_UP steps unmeasured, and then up to `repeats`, of which the median counts;
    LEAST of them once the layer's share of `budget`, in s, is used up. The stack, its optimizers and the process-wide
    generators stay as they are.

    `devices`: where to measure each layer; by default where it is. The bytes hold weights, gradients, moments, buffers
    and the outputs that wait to be taken; on a GPU also what a step needs in between, as its allocator saw it, and the
    slots for the input. `receivers`: a device per layer to which the hand-over of its output is measured, by
    `copy_time`; without them a hand-over costs nothing.

    Raises ValueError for another number of devices than of layers, and StageError for a layer that fails.
    """
    where = [layer.device for layer in stack] if devices is None else [_without_worker(device) for device in devices]
    for given in (where, receivers or where):
        if len(given) != len(stack):
            raise ValueError(f"measure: got {len(given)} devices for {len(stack)} layers; give one per layer")
    x, y = batch[0], stack.target(batch[1])
    costs: list[LayerCost] = []
    autocast = Autocast()
    # Without a list of devices this would open a context on every GPU of the machine, and warn of it.
    generators = torch.random.fork_rng(devices=sorted({device.index or 0 for device in where if device.type == "cuda"}))
    with IntraOpThreads(threads), generators:
        for index, ((name, original), device) in enumerate(zip(stack.items(), where, strict=True)):
            before = _allocated(device)
            # One copy at a time, or measuring would need twice the memory of the model.
            layer = copy.deepcopy(original).to(device)
            x, y = to_device((x, y), device)
            forward, backward, out = [], [], (x, y)
            end = time.perf_counter() + budget / len(stack)
            for step in range(WARM_UP + repeats):
                if step >= WARM_UP + LEAST and time.perf_counter() > end:
                    break
                try:
                    started, halfway, done, out = _step(layer, name, seed, x, y, device, autocast)
                except Exception as error:
                    raise StageError(name, None, error) from error
                forward.append(halfway - started)
                backward.append(done - halfway)
            used = _held_by(layer) if device.type == "cpu" else _peak(device) - before + SLOTS * _total_bytes((x, y))
            used += HELD * _total_bytes(out)
            last = index == len(stack) - 1  # nobody receives what it hands on
            handed = 0.0 if last or receivers is None else copy_time(out, _without_worker(receivers[index]))
            times = statistics.median(forward[WARM_UP:]), statistics.median(backward[WARM_UP:])
            gradients = sum(one.nbytes for one in layer.parameters() if one.requires_grad)
            costs.append(LayerCost(name, *times, used, handed, 0 if last else _total_bytes(out), gradients))
            x, y = out
            del layer  # before the next copy is made
    return costs


def _without_worker(device: torch.device) -> torch.device:
    """Return the device that torch knows: "cpu" for a worker "cpu:K"."""
    return torch.device("cpu") if device.type == "cpu" else device


def _step(
    layer: LocalLayer, name: str, seed: int, x: Any, y: Any, device: torch.device, autocast: Autocast
) -> tuple[float, float, float, tuple[Any, Any]]:
    """Take one step and return when it began, when its backward pass began, when it ended, and what it hands on."""
    _synchronize(device)  # a GPU is asked for work and does it later; only a wait makes the clock tell its time
    started = time.perf_counter()
    with torch.enable_grad(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        enter_stream(layer, seed, name, 0)
        with autocast.context():  # for the forward pass alone, as in a run
            out = layer(x, y)
        _synchronize(device)
        halfway = time.perf_counter()
        layer.backward_and_update()
        _synchronize(device)
    return started, halfway, time.perf_counter(), out


def _held_by(layer: LocalLayer) -> int:
    """Return the bytes of a layer's weights, gradients, moments and buffers."""
    weights = list(layer.parameters())
    moments = [
        value
        for optimizer in (layer.optimizer,)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    gradients = [parameter for parameter in weights if parameter.requires_grad]
    return _total_bytes([*weights, *gradients, *moments, *layer.buffers()])


def _total_bytes(tree: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(tree))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    """Return the bytes in use on a GPU, and reset its peak."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device)
