"""A CUDA graph of a stage's whole local step: one launch instead of hundreds.

Small layers are launch-bound: the host takes longer to ask for the kernels than the GPU to run them. A local step is
what graphs are good at: fixed shapes, one device, and forward, losses, backward and update all in it. The rules that
this file keeps (PyTorch's CUDA semantics, "CUDA Graphs"): warm up on the stage's stream, capture on it, one capture at
a time and no other work meanwhile, inputs in fixed memory, learning rates in tensors, generators registered.

A graph is used only where it has been seen to compute the same as the eager step, bit for bit, and to be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .base import AL
from .nested import tensors
from .randomness import streams
from .step import Batch, Step

__all__ = ["StepGraph", "capture", "make_capturable", "make_graph", "preview"]

WARM_UP = 3
TIMED = 10
#: A graph must be this much faster than the eager step to be worth its memory.
GAIN = 1.03

Layers = Sequence[tuple[str, AL]]


def capture(body: Callable[[], None], stream: Any, generators: list[torch.Generator]) -> Callable[[], None]:
    """Record the GPU work of `body` on `stream` and return what replays it."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Another thread, such as a loader's, may go on with work of its own.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        body()
    return graph.replay


class StepGraph:
    """The step of `layers` on batches of the shape of `example`, captured on `stream`; the layers' state is as before.

    `record`: what captures; tests give another. Raises RuntimeError where the step cannot be captured.
    """

    def __init__(
        self,
        layers: Layers,
        step: Step,
        example: Batch,
        stream: Any,
        record: Callable[[Callable[[], None], Any, list[torch.Generator]], Callable[[], None]] = capture,
    ) -> None:
        self._layers, self._step = layers, step
        self._inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (example.x, example.y))
        self._outputs: tuple[Any, Any, list[tuple[Tensor, Tensor]]] = None, None, []
        before = _state(layers)
        for _ in range(WARM_UP):
            self._seed(example)
            self._body()
        generators = [generator for _, layer in layers for generator in streams(layer)]
        self._replay = record(self._body, stream, generators)
        _restore(layers, before)

    def fits(self, batch: Batch) -> bool:
        """Tell whether `batch` has the shapes, dtypes and memory formats that were captured."""
        return _signature((batch.x, batch.y)) == _signature(self._inputs)

    def run(self, batch: Batch) -> None:
        """Take `batch` through the step; it then holds the last layer's outputs and every layer's losses."""
        for fixed, given in zip(tensors(self._inputs), tensors((batch.x, batch.y)), strict=True):
            fixed.copy_(given)
        self._seed(batch)
        self._replay()
        # The next replay writes to the same memory.
        x, y, losses = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, self._outputs)
        batch.x, batch.y = x, y
        batch.losses += losses
        batch.seal(self._layers[-1][0])

    def _seed(self, batch: Batch) -> None:
        for name, layer in self._layers:
            self._step.enter(name, layer, batch)

    def _body(self) -> None:
        x, y = self._inputs
        losses = []
        for _, layer in self._layers:
            with torch.enable_grad(), self._step.autocast.entered():
                x, y = layer(x, y)
            losses.append(layer.loss())
            layer.backward_and_update()
        self._outputs = x, y, losses


def make_graph(
    layers: Layers, step: Step, example: Batch, stream: Any, *, force: bool, record: Any = capture
) -> StepGraph | None:
    """Return the graph of a stage's step if it computes what the eager step computes and is faster, else None.

    `force`: do not ask whether it is faster. The layers' state is as before. To be called on `stream`, while nothing
    else uses the device.
    """
    if not all("capturable" in group for _, layer in layers for group in layer.optimizer.param_groups):
        return None
    before = _state(layers)
    try:
        graph = StepGraph(layers, step, example, stream, record)
        eager = _Eager(layers, step)
        equal = _same(_trial(eager, layers, example, before), _trial(graph, layers, example, before))
        faster = force or _seconds(eager, example, stream) > GAIN * _seconds(graph, example, stream)
        return graph if equal and faster else None
    except RuntimeError:
        return None
    finally:
        for _, layer in layers:
            layer.discard()
        _restore(layers, before)


class _Eager:
    """The step without a graph, to be compared with."""

    def __init__(self, layers: Layers, step: Step) -> None:
        self._layers, self._step = layers, step

    def run(self, batch: Batch) -> None:
        for name, layer in self._layers:
            self._step.forward(name, layer, batch)
            self._step.backward(name, layer, batch.number)


def _trial(
    runner: _Eager | StepGraph, layers: Layers, example: Batch, before: dict[str, Tensor]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run two steps from the same state and return what they hand on and the state that they leave."""
    _restore(layers, before)
    handed_on: list[Tensor] = []
    for _ in range(2):
        batch = Batch(example.number, example.x, example.y, example.lr)
        runner.run(batch)
        handed_on += tensors((batch.x, batch.y, [part for pair in batch.losses for part in pair]))
    return handed_on, _state(layers)


def _same(one: tuple[list[Tensor], dict[str, Tensor]], other: tuple[list[Tensor], dict[str, Tensor]]) -> bool:
    return (
        one[1].keys() == other[1].keys()
        and all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
        and all(torch.equal(one[1][name], other[1][name]) for name in one[1])
    )


def _seconds(runner: _Eager | StepGraph, example: Batch, stream: Any) -> float:
    stream.synchronize()
    start = time.perf_counter()
    for _ in range(TIMED):
        runner.run(Batch(example.number, example.x, example.y, example.lr))
    stream.synchronize()
    return time.perf_counter() - start


def make_capturable(layer: AL) -> None:
    """Keep the optimizer's learning rates and step count on the device, where a graph can read them.

    A learning rate in a tensor is rounded to float32, so every schedule does this, or they would differ by that.
    """
    for group in layer.optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=layer.device)


def preview(layers: Layers, example: Batch) -> Batch:
    """Return what `layers` would hand on for `example`; their state is as before."""
    before = _state(layers)
    x, y = example.x, example.y
    with torch.no_grad():
        for _, layer in layers:
            x, y = layer(x, y)
    _restore(layers, before)
    return Batch(example.number, x, y, example.lr)


def _state(layers: Layers) -> dict[str, Tensor]:
    """Return copies of all that a step changes: parameters, buffers and the optimizers' moments."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(layers).items()}


def _restore(layers: Layers, before: dict[str, Tensor]) -> None:
    """Write the state back in place; a moment that did not exist becomes zero, which is how it would start."""
    with torch.no_grad():
        for name, tensor in _tensors(layers).items():
            if name in before:
                tensor.copy_(before[name])
            else:
                tensor.zero_()


def _tensors(layers: Layers) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, layer in layers:
        found |= {f"{name} {key}": value for key, value in (*layer.named_parameters(), *layer.named_buffers())}
        for number, state in enumerate(layer.optimizer.state.values()):
            found |= {f"{name} {number} {key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return found


def _signature(tree: Any) -> list[tuple[Any, ...]]:
    return [(leaf.shape, leaf.dtype, leaf.stride()) for leaf in tensors(tree)]
