"""What a layer costs per batch, measured: forward, backward with update, and memory."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import StageError
from ..layer import LocalLayer
from ..nested import tensors, to_device
from ..randomness import enter_stream
from ..stage.threads import intra_op_threads

if TYPE_CHECKING:  # stack.py imports this package
    from ..stack import ALStack


#: Steps of a layer that are not measured, and how many are at least.
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

    @property
    def total(self) -> float:
        """Seconds per batch."""
        return self.forward + self.backward


def measure(
    stack: ALStack,
    batch: tuple[Any, Any],
    *,
    threads: int,
    device: torch.device | None = None,
    seed: int = 0,
    repeats: int = 15,
    budget: float = 4.0,
) -> list[LayerCost]:
    """Return what every layer of `stack` costs on `batch`, (x, y) as the loader yields it, on `device`.

    A copy of one layer at a time takes WARM_UP steps unmeasured, and then up to `repeats`, of which the median counts;
    LEAST of them once the layer's share of `budget`, in s, is over. The stack, its optimizers and the process-wide
    generators stay as they are. `device`: by default the one that each layer is on. On the CPU the bytes are an
    estimate: weights, gradients, moments, buffers, and the outputs that wait to be taken; on a GPU they are the growth
    that its allocator saw. Raises StageError for a layer that fails.
    """
    x, y = batch[0], stack.target(batch[1])
    costs: list[LayerCost] = []
    with intra_op_threads(threads), torch.random.fork_rng():
        for name, original in stack.items():
            where = original.device if device is None else device
            where = torch.device("cpu") if where.type == "cpu" else where
            before = _allocated(where)
            layer = copy.deepcopy(original).to(where)
            x, y = to_device((x, y), where)
            forward, backward, out = [], [], (x, y)
            end = time.perf_counter() + budget / len(stack)
            for step in range(WARM_UP + repeats):
                if step >= WARM_UP + LEAST and time.perf_counter() > end:
                    break
                try:
                    started, turned, done, out = _step(layer, name, seed, x, y, where)
                except Exception as error:
                    raise StageError(name, None, error) from error
                forward.append(turned - started)
                backward.append(done - turned)
            used = _peak(where) - before if where.type == "cuda" else _estimate(layer, out)
            costs.append(
                LayerCost(name, statistics.median(forward[WARM_UP:]), statistics.median(backward[WARM_UP:]), used)
            )
            x, y = out
            del layer
    return costs


def _step(
    layer: LocalLayer, name: str, seed: int, x: Any, y: Any, device: torch.device
) -> tuple[float, float, float, tuple[Any, Any]]:
    """Take one step and return when it began, turned round and ended, and what the layer hands on."""
    _synchronize(device)
    started = time.perf_counter()
    with torch.enable_grad(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        enter_stream(layer, seed, name, 0)
        out = layer(x, y)
        _synchronize(device)
        turned = time.perf_counter()
        layer.backward_and_update()
        _synchronize(device)
    return started, turned, time.perf_counter(), out


def _estimate(layer: LocalLayer, out: Any) -> int:
    weights = list(layer.parameters())
    moments = [
        value for state in layer.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    gradients = sum(_bytes(parameter) for parameter in weights if parameter.requires_grad)
    held = sum(map(_bytes, [*weights, *layer.buffers(), *moments]))
    return gradients + held + HELD * sum(map(_bytes, tensors(out)))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    """Return the bytes in use on a GPU, and start its peak anew."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device)
