"""A CUDA graph of a layer's whole local step: one launch instead of hundreds.

Small layers are launch-bound: the host takes longer to ask for the kernels than the GPU to run them. A local step is
what graphs are good at: fixed shapes, one device, and forward, losses, backward and update all in it. The rules that
this file keeps (PyTorch's CUDA semantics, "CUDA Graphs"): warm up on the worker's stream, capture on it, one capture at
a time and no other work meanwhile, inputs in fixed memory, learning rates in tensors, generators registered.

A graph is used only where it has been seen to compute the same as the eager step, bit for bit, and to be faster; and
only as long as everything it was recorded with is unchanged. Python code inside the step runs while the graph is made
and not when it is replayed, so a layer with hooks gets none.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import StageError
from ..layer import LocalLayer
from ..nested import tensors
from ..randomness import dropouts, streams
from .batch import InPlaceGuard, TrainBatch
from .state import copy_state, fingerprint, hooked, restore_state
from .step import Step

WARM_UP = 3
TIMED = 10
#: A graph must be this much faster than the eager step to be worth its memory.
GAIN = 1.03
#: Optimizers that can read rate and step count from the device, and whose moments start at zero, so that the trial's
#: steps can be undone.
CAPTURABLE = (torch.optim.Adam, torch.optim.AdamW)

Layers = Sequence[tuple[str, LocalLayer]]


def capture(body: Callable[[], None], stream: Any, generators: list[torch.Generator]) -> Callable[[], None]:
    """Record the GPU work of `body` on `stream` and return what replays it."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # thread_local: another thread, such as a loader's, may go on with work of its own.
    with _own_workspaces(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        body()
    return graph.replay


@contextmanager
def _own_workspaces() -> Iterator[None]:
    """Let what is recorded take matrix workspaces from its graph's memory, which nothing else uses.

    PyTorch keeps one cuBLAS workspace per stream, and a graph goes on writing to the one that it was recorded with.
    With several streams per device, two layers' graphs from one stream may be replayed at the same time on two.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


class StepGraph:
    """The step of `layers` on batches of the shape of `example`, captured on `stream`; the layers' state is as before.

    `record`: what captures; tests give another. Raises RuntimeError where the step cannot be captured.
    """

    def __init__(
        self,
        layers: Layers,
        step: Step,
        example: TrainBatch,
        stream: Any,
        record: Callable[[Callable[[], None], Any, list[torch.Generator]], Callable[[], None]] = capture,
    ) -> None:
        self._layers, self._step = layers, step
        self._inputs = _cloned((example.x, example.y))
        self._outputs: tuple[Any, Any, list[dict[str, Tensor]]] = None, None, []
        before = copy_state(layers)
        # Libraries set themselves up and the moments come into being here, which a capture must not record.
        for _ in range(WARM_UP):
            self._seed(example)
            self._body()
        generators = [generator for _, layer in layers for generator in streams(layer)]
        self._replay = record(self._body, stream, generators)
        restore_state(layers, before)
        self._recorded_with = self._settings()

    def fits(self, batch: TrainBatch) -> bool:
        """Return whether `batch` has the structure, shapes, dtypes and memory formats that were captured."""
        return _signature((batch.x, batch.y)) == _signature(self._inputs)

    def stale(self) -> bool:
        """Return whether a replay is no longer the layers' step: a state was loaded, a mode or an option changed."""
        return self._settings() != self._recorded_with

    def _settings(self) -> tuple[Hashable, list[Any]]:
        return fingerprint(self._layers), self._step.autocast.settings

    def run(self, batch: TrainBatch) -> None:
        """Take `batch` through the step; it then holds the last layer's outputs and every layer's losses."""
        for fixed, source in zip(tensors(self._inputs), tensors((batch.x, batch.y)), strict=True):
            fixed.copy_(source)
        self._seed(batch)
        self._replay()
        # Copies, because the next replay writes to the same memory.
        batch.x, batch.y, losses = _cloned(self._outputs)
        batch.losses += losses
        batch.guard = InPlaceGuard(self._layers[-1][0], (batch.x, batch.y))

    def _seed(self, batch: TrainBatch) -> None:
        for name, layer in self._layers:
            self._step.prepare(name, layer, batch)

    def _body(self) -> None:
        x, y = self._inputs
        losses = []
        for _, layer in self._layers:
            with torch.enable_grad(), self._step.autocast.context():
                x, y = layer(x, y)
            losses.append(layer.losses())
            layer.backward_and_update()
        self._outputs = x, y, losses


def make_graph(
    layers: Layers, step: Step, example: TrainBatch, stream: Any, *, force: bool, record: Any = capture
) -> StepGraph | None:
    """Return the graph of the layers' step if it computes what the eager step computes and is faster, else None.

    `force`: do not ask whether it is faster, and warn where there is no graph. The layers' state is as before. Call it
    on `stream`, while nothing else uses the device.
    """
    graph, reason = None, _refusal(layers)
    if reason is None:
        try:
            before = copy_state(layers)
            try:
                graph, reason = _attempt(layers, step, example, stream, force, record, before)
            finally:
                for _, layer in layers:
                    layer.discard()
                restore_state(layers, before)
        except Exception as error:  # the eager step goes on, and if it fails too, it says where
            reason = f"{type(error).__name__}: {error}"
            # A capture that broke off may have left the generators unusable; without them the step makes new ones.
            for drop in (drop for _, layer in layers for drop in dropouts(layer)):
                drop.stream = None
    if force and graph is None:
        warnings.warn(f"no CUDA graph for {', '.join(name for name, _ in layers)}: {reason}", stacklevel=2)
    return graph


def _refusal(layers: Layers) -> str | None:
    """Return why the step of these layers cannot be captured; None where it is worth trying."""
    for name, layer in layers:
        if type(layer.optimizer) not in CAPTURABLE:
            return f"the optimizer of {name} is {type(layer.optimizer).__name__}, not Adam or AdamW"
        if hooked(layer):
            return f"{name} has hooks, which a replay would not call"
        for path, module in layer.named_modules():
            if not getattr(module, "capturable", True):
                return f"{path} of {name} ({type(module).__name__}) is marked as not capturable"
    return None


def _attempt(
    layers: Layers, step: Step, example: TrainBatch, stream: Any, force: bool, record: Any, before: dict[str, Tensor]
) -> tuple[StepGraph | None, str | None]:
    """Capture, compare and time; return the graph, or None and the reason."""
    untraced = Step(step.seed, None)  # the trial is no part of the run
    untraced.autocast, untraced.watch = step.autocast, step.watch
    graph, eager = StepGraph(layers, step, example, stream, record), _Eager(layers, untraced)
    expected = _trial(eager, layers, example, before)
    if not _equal(expected, _trial(graph, layers, example, before)):
        if not _equal(expected, _trial(eager, layers, example, before)):
            return None, (
                "the eager step does not compute the same twice, so there is nothing to compare a graph with; "
                "call torch.use_deterministic_algorithms(True) before training"
            )
        return None, "it does not compute what the eager step computes"
    if not force and _seconds(eager, example, stream) <= GAIN * _seconds(graph, example, stream):
        return None, "it is not faster"
    return graph, None


class _Eager:
    """The step without a graph, to compare with."""

    def __init__(self, layers: Layers, step: Step) -> None:
        self._layers, self._step = layers, step

    def run(self, batch: TrainBatch) -> None:
        for name, layer in self._layers:
            self._step.forward(name, layer, batch)
            layer.backward_and_update()


#: What two steps hand on, and the state that they leave.
Outcome = tuple[list[Tensor], dict[str, Tensor]]


def _trial(runner: _Eager | StepGraph, layers: Layers, example: TrainBatch, before: dict[str, Tensor]) -> Outcome:
    """Run two steps from the same state."""
    restore_state(layers, before)
    handed_on: list[Tensor] = []
    for _ in range(2):
        batch = _fresh(example)
        runner.run(batch)
        handed_on += tensors((batch.x, batch.y, batch.losses))
    return handed_on, copy_state(layers)


def _equal(expected: Outcome, actual: Outcome) -> bool:
    (outputs, state), (other_outputs, other_state) = expected, actual
    return (
        state.keys() == other_state.keys()
        and all(torch.equal(a, b) for a, b in zip(outputs, other_outputs, strict=True))
        and all(torch.equal(state[name], other_state[name]) for name in state)
    )


def _seconds(runner: _Eager | StepGraph, example: TrainBatch, stream: Any) -> float:
    stream.synchronize()
    start = time.perf_counter()
    for _ in range(TIMED):
        runner.run(_fresh(example))
    stream.synchronize()
    return time.perf_counter() - start


def make_capturable(layer: LocalLayer) -> None:
    """Keep the optimizer's learning rates and step count on the device, where a graph can read them.

    A learning rate in a tensor is rounded to float32, so every schedule does this; otherwise they would differ by that.
    """
    if type(layer.optimizer) not in CAPTURABLE:
        return
    for group in layer.optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=layer.device)
    if layer.optimizer.state:  # loading it again moves the step counts to the device
        layer.optimizer.load_state_dict(layer.optimizer.state_dict())


def preview(layers: Layers, step: Step, example: TrainBatch) -> TrainBatch:
    """Return what `layers` would hand on for `example`; their state is as before. Raises StageError."""
    before = copy_state(layers)
    x, y = example.x, example.y
    try:
        for name, layer in layers:
            try:
                step.prepare(name, layer, example)
                with torch.no_grad(), step.autocast.context():
                    x, y = layer(x, y)
            except Exception as error:
                raise StageError(name, example.number, error) from error
    finally:
        restore_state(layers, before)
    return TrainBatch(example.number, x, y, example.lr)


def _fresh(example: TrainBatch) -> TrainBatch:
    return TrainBatch(example.number, example.x, example.y, example.lr)


def _cloned(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def _signature(tree: Any) -> tuple[Any, list[Any]]:
    leaves, structure = tree_flatten(tree)
    return structure, [(leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
