"""What is checked before training, on copies of the layers and one batch, because it would go wrong without an error.

1. Training and inference agree. Training calls a layer's `forward`, inference its `hidden`, `readout` and `decode`; an
   ENC with a residual in `forward` alone would train one network and predict with another.
2. Where layers train at the same time, no layer draws from a process-wide random generator: timing would decide which
   layer gets which numbers. The generators' states are compared, because a draw can hide in any function
   (`F.dropout`, `torch.rand_like`, an attention's dropout) and no list of module types is complete.
"""

from __future__ import annotations

import copy
import pickle
import random
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from .base import AE, AL, ENC
from .layer import LocalLayer
from .nested import detach, tensors, to_device, versions
from .randomness import enter_stream
from .stack import ALStack

Context = Callable[[], AbstractContextManager[Any]]


def check_layers(
    stack: ALStack, batch: tuple[Any, Any], *, concurrent: bool, seed: int, context: Context = nullcontext
) -> None:
    """Refuse a stack whose layers would train wrongly without any error.

    Works on a deep copy of one layer at a time: the stack, its optimizers and buffers, the batch and the process-wide
    generators are left as they were. An exception from a layer ends the check silently, because the run will raise it
    again and report layer and batch.

    Args:
        stack: The stack that is about to be trained, in the modes (training or evaluation) that it will train in.
        batch: The first batch (x, y), as the loader yields it.
        concurrent: Whether layers will train at the same time, so that draws from process-wide generators count.
        seed: The root of the layers' random streams.
        context: Makes the context of a forward pass, such as autocast.

    Raises:
        ValueError: If training and inference disagree in a layer, if a layer's readout changes the layer's output in
            place, or if `concurrent` and a layer draws from a process-wide generator.

    In files for the earlier public code, inference is the business of the user's model. Their layers are not refused:
    one warning names them all. Recognized are layers that replace `AL.forward`; layers whose `hidden` or `readout`
    raises an exception, or returns another structure or shape than training sees; and layers whose overridden
    `forward` does not use `cri`, so that what its loss compares cannot be seen.
    """
    generators = _Generators(sorted({layer.device.index or 0 for layer in stack if layer.device.type == "cuda"}))
    start = generators.save()
    doubts: list[str] = []
    try:
        _check(stack, batch, concurrent, seed, context, generators, doubts)
    except _RefusedError as refused:
        raise ValueError(str(refused)) from None
    except Exception:  # the user's: the run raises it again, as a StageError that names layer and batch
        return
    finally:
        generators.restore(start)
    if doubts:
        warnings.warn(
            f"training and inference disagree or cannot be compared in {'; '.join(doubts)}: before you predict with "
            "ALStack.inference, override hidden, bridge, encode and decode so that forward uses them too",
            stacklevel=2,
        )


class _RefusedError(Exception):
    """A finding of the check, as opposed to an exception of the user's code."""


def _check(
    stack: ALStack,
    batch: tuple[Any, Any],
    concurrent: bool,
    seed: int,
    context: Context,
    generators: _Generators,
    doubts: list[str],
) -> None:
    """Take the batch through a copy of each layer, and check the copy with it."""
    x, y = tree_map(_clone, batch)
    y = stack.target(y)
    for name, original in stack.items():
        try:
            layer = _copy(original)
        except Exception as error:  # a user's module may fail in any way while it is copied
            doubts.append(f"{name!r} (it cannot be copied, so its draws are not checked either: {error})")
            return
        with torch.cuda.device(layer.device) if layer.device.type == "cuda" else nullcontext():
            x, y = to_device(detach((x, y)), layer.device)
            step = partial(_drawing_step, layer, (seed, name, 0), x, y, context, generators)
            source = _unseen_source(layer) if concurrent else None
            # The second step confirms the draw: it could have come from another thread, such as a loader's.
            if source is None and concurrent and (seen := step()) is not None and step() is not None:
                source = seen
            if source is not None:
                raise _RefusedError(
                    f"layer {name!r}: {source} draws from a process-wide random generator, so layers that train at the "
                    "same time would get other numbers in every run; use ALPackage.randomness.replace_dropout(model), "
                    'set the rate to 0, or train with schedule="sequential"'
                )
            layer.eval()
            with torch.no_grad(), context():
                x, y = _Comparison(name, layer, generators, doubts).run(x, y)


# --- training and inference agree -----------------------------------------------------------------------------------

#: The result of a function that cannot process its input.
_UNKNOWN = object()


class _Comparison:
    """Compares what training and inference compute in one copy of a layer, in evaluation mode."""

    def __init__(self, name: str, layer: LocalLayer, generators: _Generators, doubts: list[str]) -> None:
        self.name = name
        self.layer = layer
        self.generators = generators
        self.start = generators.save()
        self.doubts = doubts
        #: Whether the layer itself, not the base class, decides how enc and ae are used.
        self.replaced = type(layer).forward is not LocalLayer.forward

    def run(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Raise _RefusedError or note a doubt if they differ, and return what the layer hands on."""
        layer, kind = self.layer, type(self.layer).__name__
        if isinstance(layer, AL) and not self.replaced:
            code = detach(self.call(layer.ae, y)[1])
            self.compare_side(layer.ae, layer.ae.encode, layer.ae.decode, (y,), y)
            self.compare_side(layer.enc, layer.enc.hidden, layer.enc.bridge, (x, code), code)
        handed_on: tuple[Any, Any] = self.call(layer, x, y)
        if (hidden := self.infer(layer.hidden, x)) is _UNKNOWN:
            return handed_on
        before = versions(tensors(hidden))
        self.infer(layer.readout, hidden)
        if versions(tensors(hidden)) != before:
            self.refuse(
                f"{'b' if isinstance(layer, AL) else 'readout'} changes the layer's output in place, but the next "
                "layer needs it unchanged; use operations that are not in place, such as nn.ReLU(inplace=False)"
            )
        self.expect(f"{kind}.forward", f"{kind}.hidden", handed_on[0], hidden)
        return handed_on

    def compare_side(
        self,
        side: ENC | AE,
        first: Callable[[Any], Any],
        second: Callable[[Any], Any],
        inputs: tuple[Any, ...],
        target: Any,
    ) -> None:
        """Compare `side.forward(*inputs)` with `first` and `second`, which inference calls one after the other."""
        kind = type(side)
        if kind.forward in (ENC.forward, AE.forward):
            return  # it calls the same two functions
        seen = _watch_criterion(side)
        loss, middle = self.call(side, *inputs)
        compared = seen[0] if seen else _UNKNOWN
        inferred = self.infer(first, inputs[0])
        self.expect(f"{kind.__name__}.forward", f"{kind.__name__}.{first.__name__}", middle, inferred)
        result = self.infer(second, inferred)
        if compared is not _UNKNOWN:
            self.expect(f"{kind.__name__}.forward", f"{kind.__name__}.{second.__name__}", compared, result)
        elif result is not _UNKNOWN and not (_alike(result, target) and _equal(loss, side.loss(result, target))):
            self.doubt(f"{kind.__name__}.forward has a loss of its own")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function with the same generator states every time, in case it draws in evaluation mode too."""
        self.generators.restore(self.start)
        return function(*arguments)

    def infer(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Return what a step of inference computes, or _UNKNOWN if it cannot process its input."""
        if argument is _UNKNOWN:
            return _UNKNOWN
        try:
            return self.call(function, argument)
        except Exception as error:  # allowed: the user's model may have its own way of inference
            self.doubt(f"{function.__name__} raises {type(error).__name__}: {error}")
            return _UNKNOWN

    def expect(self, training: str, inference: str, trained: Any, inferred: Any) -> None:
        """Refuse or doubt the layer if the two results differ."""
        if inferred is _UNKNOWN or _equal(trained, inferred):
            return
        if self.replaced or (isinstance(self.layer, AL) and not _alike(trained, inferred)):
            self.doubt(f"{training} and {inference} disagree")
            return
        self.refuse(
            f"{training} and {inference} disagree on the first batch, so predictions would not come from the network "
            f"that was trained; override {inference.split('.')[-1]} instead of forward, so that both use it"
        )

    def refuse(self, finding: str) -> None:
        """Raise _RefusedError with the layer's name."""
        raise _RefusedError(f"layer {self.name!r}: {finding}")

    def doubt(self, finding: str) -> None:
        """Note the layer's first finding for the warning."""
        if not any(noted.startswith(repr(self.name)) for noted in self.doubts):
            self.doubts.append(f"{self.name!r} ({' '.join(finding.split())})")


def _watch_criterion(side: ENC | AE) -> list[Any]:
    """Return a list that receives the first argument of every call of the criterion of this copy."""
    seen: list[Any] = []
    criterion = side.cri
    if isinstance(criterion, nn.Module):
        criterion.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[:1]))
    else:

        def watched(*arguments: Any, **options: Any) -> Tensor:
            seen.extend(arguments[:1])
            return criterion(*arguments, **options)

        side.cri = watched
    return seen


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two results have the same structure and the same shapes."""
    if tree_structure(one) != tree_structure(other):
        return False
    return [leaf.shape for leaf in tensors(one)] == [leaf.shape for leaf in tensors(other)]


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two results are the same: bit for bit on the CPU, within rounding on a GPU.

    On a GPU two calls of one function may differ: cuDNN may choose another algorithm, atomic additions have no order.
    """
    if not _alike(one, other):
        return False
    for a, b in zip(tensors(one), tensors(other), strict=True):
        tolerance = 0.0 if a.device.type == "cpu" else None  # None: what suits the dtype
        try:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        except AssertionError:
            return False
    return True


# --- no draws from process-wide generators --------------------------------------------------------------------------


class _Generators:
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
    generators: _Generators,
) -> str | None:
    """Take one training step; return the innermost module that drew from a process-wide generator, or None."""
    sources: list[str] = []
    entered: list[list[Any]] = []  # the states at the start of every call that has not returned

    def enter(*_: Any) -> None:
        entered.append(generators.save())

    def leave(path: str, module: nn.Module) -> None:
        if generators.changed(entered.pop()):  # a call returns before the one around it: the innermost comes first
            sources.append(f"{path} ({type(module).__name__})" if path else type(module).__name__)

    hooks = []
    for path, module in layer.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(lambda module, *_, path=path: leave(path, module)))
    enter_stream(layer, *coordinates)
    before = generators.save()
    try:
        with torch.enable_grad():
            with context():
                layer(x, y)
            layer.backward_and_update()
    finally:
        for hook in hooks:
            hook.remove()
        layer.discard()
    if not sources and generators.changed(before):
        sources.append("its backward pass or update")
    return sources[0] if sources else None


def _unseen_source(layer: nn.Module) -> str | None:
    """Return the first RNN with dropout on a GPU, if there is one.

    cuDNN keeps one dropout state per GPU for the whole process. It is seeded from the generator once, and afterwards
    every call of every layer advances it, which the generator does not show.
    """
    for path, module in layer.named_modules():
        drops = isinstance(module, nn.RNNBase) and module.training and module.dropout > 0.0 and module.num_layers > 1
        if drops and any(weight.is_cuda for weight in module.parameters()):
            return f"{path} ({type(module).__name__})"
    return None


# --- copies ---------------------------------------------------------------------------------------------------------


def _clone(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _copy(layer: LocalLayer) -> LocalLayer:
    """Return a deep copy of a layer, without a batch in flight.

    A tensor with a graph, such as the loss of an earlier batch that a subclass keeps, can only be copied without it.
    """
    memo: dict[int, Any] = {}
    for module in layer.modules():
        for leaf in tree_leaves(vars(module)):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                memo[id(leaf)] = leaf.detach()
    copied = copy.deepcopy(layer, memo)
    copied.discard()
    return copied
