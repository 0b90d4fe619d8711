"""Draws from process-wide random generators, found by comparing the generators' states.

A draw can hide in any function (`F.dropout`, `torch.rand_like`, an attention's dropout), so no list of module types is
complete.
"""

from __future__ import annotations

import pickle
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .layer import LocalLayer
from .randomness import enter_stream

Context = Callable[[], AbstractContextManager[Any]]

DRAWS = "draws from a process-wide random generator"
SETS = "sets a process-wide random generator while the layer trains"
CHECKPOINT = f"torch.utils.checkpoint {SETS} (preserve_rng_state=False keeps it from that)"


class RefusedError(Exception):
    """A finding of the check, as opposed to an exception of the user's code."""


class Generators:
    """The process-wide random generators: torch's on the CPU and on `gpus`, Python's, and NumPy's if it is loaded."""

    def __init__(self, gpus: list[int]) -> None:
        self.gpus = gpus
        self.numpy: Any = sys.modules.get("numpy")

    def save(self) -> list[Any]:
        """Return the state of each."""
        of_numpy = [self.numpy.random.get_state()] if self.numpy else []
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.gpus), random.getstate(), *of_numpy]

    def restore(self, states: list[Any]) -> None:
        """Set each to a state that `save` returned."""
        of_cpu, *rest = states
        torch.set_rng_state(of_cpu)
        for gpu, state in zip(self.gpus, rest, strict=False):
            torch.cuda.set_rng_state(state, gpu)
        random.setstate(rest[len(self.gpus)])
        if self.numpy:
            self.numpy.random.set_state(rest[-1])

    def changed(self, since: list[Any]) -> bool:
        """Tell whether a number has been drawn from any of them since `save` returned these states."""
        for old, new in zip(since, self.save(), strict=True):
            same = torch.equal(old, new) if isinstance(old, Tensor) else pickle.dumps(old) == pickle.dumps(new)
            if not same:
                return True
        return False


def _drawing_step(
    layer: LocalLayer,
    coordinates: tuple[int | str, ...],
    x: Any,
    y: Any,
    context: Context,
    generators: Generators,
) -> tuple[tuple[Any, Any], str | None]:
    """Take one training step; return its outputs, and what drew from a process-wide generator, innermost first."""
    sources: list[str] = []
    entered: list[list[Any]] = []  # the states at the start of every call that has not returned

    def enter(*_: Any) -> None:
        entered.append(generators.save())

    def leave(path: str, module: nn.Module) -> None:
        if generators.changed(entered.pop()):  # a call returns before the one around it: the innermost comes first
            sources.append(f"{_called(path, module)} {DRAWS}")

    hooks: list[Any] = []
    reseeded: list[str] = []
    for path, module in layer.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(lambda module, *_, path=path: leave(path, module)))
    enter_stream(layer, *coordinates)
    before = generators.save()
    try:
        with torch.enable_grad(), _noting_reseeding(reseeded):
            with context():
                handed_on = layer(x, y)
            layer.backward_and_update()
    finally:
        for hook in hooks:
            hook.remove()
        layer.discard()
    if not sources and generators.changed(before):
        sources.append(f"its backward pass or update {DRAWS}")
    sources += reseeded
    return handed_on, sources[0] if sources else None


@contextmanager
def _noting_reseeding(found: list[str]) -> Iterator[None]:
    """Note calls on this thread that set torch's process-wide generator, perhaps back, so that its state shows nothing.

    `torch.random.fork_rng` makes them, and so does `torch.utils.checkpoint`, even where nothing is drawn: it would take
    back what a loader draws at the same time.
    """
    caller = threading.get_ident()
    originals: list[tuple[Any, str, Any]] = []

    def note(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() == caller:
            modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None)}
            found.append(CHECKPOINT if "torch.utils.checkpoint" in modules else f"torch.{name} {SETS}")
        return function(*arguments, **options)

    try:
        for module in (torch, torch.random):
            for name in ("set_rng_state", "manual_seed", "seed"):
                function = getattr(module, name)
                originals.append((module, name, function))
                setattr(module, name, partial(note, name, function))
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


def _unseen_source(layer: nn.Module) -> str | None:
    """Return the first RNN with dropout on a GPU, if there is one.

    cuDNN keeps one dropout state per GPU for the whole process. It is seeded from the generator once, and afterwards
    every call of every layer advances it, which the generator does not show.
    """
    for path, module in layer.named_modules():
        drops = isinstance(module, nn.RNNBase) and module.training and module.dropout > 0.0 and module.num_layers > 1
        if drops and any(weight.is_cuda for weight in module.parameters()):
            return _called(path, module)
    return None


def _called(path: str, module: nn.Module) -> str:
    return f"{path} ({type(module).__name__})" if path else type(module).__name__


def refuse_draws(
    name: str,
    layer: LocalLayer,
    coordinates: tuple[int | str, ...],
    x: Any,
    y: Any,
    context: Context,
    generators: Generators,
) -> tuple[Any, Any]:
    """Raise RefusedError for a layer that draws from a process-wide generator; return what it hands on."""
    step = partial(_drawing_step, layer, coordinates, x, y, context, generators)
    unseen = _unseen_source(layer)
    source = None if unseen is None else f"{unseen} {DRAWS}"
    start = generators.save()
    handed_on, seen = step()
    generators.restore(start)  # what seeds a generator leaves it in the same state every time
    # A second step confirms the draw: it could have come from another thread, such as a loader's.
    if source is None and seen is not None and step()[1] is not None:
        source = seen
    if source is not None:
        raise _drawing(name, source)
    return handed_on


def refuse_known_draws(layers: list[tuple[str, LocalLayer]], concurrent: bool) -> None:
    """Refuse the modules that are known to draw, in layers that cannot be tried on copies."""
    for name, layer in layers if concurrent else ():
        for path, module in layer.named_modules():
            drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0.0
            drops |= isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and module.dropout > 0.0
            if module.training and drops:
                raise _drawing(name, f"{_called(path, module)} {DRAWS}")


def _drawing(name: str, finding: str) -> RefusedError:
    return RefusedError(
        f"layer {name!r}: {finding}, so layers that train at the same time would get other numbers in every run; "
        "use ALPackage.randomness.replace_dropout(model), or set the rate to 0 where that cannot replace it (in "
        'nn.MultiheadAttention and nn.LSTM), or train with schedule="sequential"'
    )
