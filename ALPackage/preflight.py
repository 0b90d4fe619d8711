"""What is checked before training, on copies of the layers and one batch, because it would go wrong without an error.

1. Training and inference agree. Training calls a layer's `forward`, inference its `hidden`, `readout` and `decode`; an
   ENC with a residual in `forward` alone would train one network and predict with another.
2. Where layers train at the same time, no layer draws from a process-wide random generator: timing would decide which
   layer gets which numbers. The generators' states are compared, because a draw can hide in any function
   (`F.dropout`, `torch.rand_like`, an attention's dropout) and no list of module types is complete.
3. No function changes in place what comes into the layer or leaves it, in training or in evaluation mode.
4. Where layers train at the same time, all of f, b, g and h get a gradient, and so do f and all heads of a layer with
   heads; else a warning names those without.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from .base import AE, AL, ENC
from .draws import Context, Generators, RefusedError, refuse_draws, refuse_known_draws
from .errors import UnfitLayersError
from .idle import note_gradients, without_gradient
from .in_place import InPlaceChanges
from .layer import LocalLayer
from .nested import detach, same_values, tensors, to_device
from .optimized import OwnSettings, changed_settings
from .randomness import enter_stream
from .stack import ALStack


def check_layers(
    stack: ALStack,
    batch: tuple[Any, Any],
    *,
    concurrent: bool,
    seed: int,
    context: Context = nullcontext,
    own_settings: OwnSettings | None = None,
    part: Sequence[str] | None = None,
    handed_on: list[Any] | None = None,
) -> tuple[str, Exception] | None:
    """Refuse a stack whose layers would train wrongly without any error.

    Works on deep copies of one layer at a time: the stack, its optimizers and buffers, the batch and the process-wide
    generators are left as they were. An exception from a layer in training ends the check: the run would raise it too.

    Args:
        stack: The stack that is about to be trained, in the modes (training or evaluation) that it will train in.
        batch: The first batch (x, y), as the loader yields it.
        concurrent: Whether layers will train at the same time, so that draws from process-wide generators count.
        seed: The root of the layers' random streams.
        context: Makes the context of a forward pass, such as autocast.
        own_settings: Filled, if `concurrent`, with the optimizer settings that a layer's own step changes, by layer.
        part: The names of neighboring layers, to check these alone. Where the first layer is not among them, `batch` is
            what the layer before them hands on.
        handed_on: Gets the (x, y) that the last of the layers hands on, if the check was complete.

    Returns:
        The layer ("target" for the stack's) and the exception that ended the check early; None if it was complete.

    Raises:
        UnfitLayersError: If training and inference disagree in a layer, if one of its functions changes its input or
            its output in place, or if `concurrent` and a layer draws from a process-wide generator.

    In files for the earlier public code, inference is the business of the user's model. Their layers are not refused:
    one warning names them all. Recognized are layers that replace `AL.forward`; layers whose `hidden` or `readout`
    raises an exception, or returns another structure or shape than training sees; and layers whose overridden
    `forward` does not use `cri`, so that what its loss compares cannot be seen. The warning also names layers that
    cannot be copied.
    """
    generators = Generators(sorted({layer.device.index or 0 for layer in stack if layer.device.type == "cuda"}))
    start = generators.save()
    doubts: list[str] = []
    idle: list[str] = []
    try:
        own = {} if own_settings is None else own_settings
        layers = [(name, layer) for name, layer in stack.items() if part is None or name in part]
        target = stack.target if layers[0][0] == stack.names[0] else _as_it_is
        failure = _check(layers, target, batch, concurrent, seed, context, generators, doubts, idle, own, handed_on)
    except RefusedError as refused:
        raise UnfitLayersError(str(refused)) from None
    finally:
        generators.restore(start)
    if idle and failure is None:
        warnings.warn(
            f"no loss has a gradient to {', '.join(idle)} on the first batch, whose weights do not train then: is it "
            "under torch.no_grad(), or detached? requires_grad_(False) says that this is meant",
            stacklevel=2,
        )
    if doubts and failure is None:  # else the run will say what is worse
        warnings.warn(
            f"training and inference disagree or cannot be compared in {'; '.join(doubts)}: before you predict with "
            "ALStack.inference, override hidden, bridge, encode and decode so that forward uses them too",
            stacklevel=2,
        )
    return failure


def _as_it_is(y: Any) -> Any:
    return y


def _check(
    layers: list[tuple[str, LocalLayer]],
    target: Callable[[Any], Any],
    batch: tuple[Any, Any],
    concurrent: bool,
    seed: int,
    context: Context,
    generators: Generators,
    doubts: list[str],
    idle: list[str],
    own_settings: OwnSettings,
    handed_on: list[Any] | None,
) -> tuple[str, Exception] | None:
    """Take the batch through copies of each layer, and check the copies with it."""
    name = "target"
    try:
        x, labels = tree_map(_clone, batch)
        y = target(labels)
        if not all(map(same_values, tensors(labels), tensors(batch[1]))):
            raise RefusedError(
                "the stack's target changes in place the y that it is given, which belongs to the loader; return a new "
                "tensor"
            )
        for number, (name, original) in enumerate(layers):
            try:
                compared, trained = _copy(original), _copy(original)
            except Exception as error:  # a user's module may fail in any way while it is copied
                refuse_known_draws(layers[number:], concurrent)
                behind = (
                    f", nor can the {len(layers) - number - 1} behind it be checked" if layers[number + 1 :] else ""
                )
                doubts.append(f"{name!r} (it cannot be copied{behind}: {error})")
                return None
            with torch.cuda.device(original.device) if original.device.type == "cuda" else nullcontext():
                x, y = to_device(detach((x, y)), original.device)
                with _refusing_changes(name, compared, x, y):
                    _compare(name, compared.eval(), x, y, context, generators, doubts)
                reached = note_gradients(trained)
                with _refusing_changes(name, trained, x, y) as changes:
                    if concurrent:
                        outputs = refuse_draws(name, trained, (seed, name, 0), x, y, context, generators)
                    else:
                        enter_stream(trained, seed, name, 0)
                        with torch.no_grad(), context():
                            outputs = trained(x, y)
                    changes.append(outputs)
                if concurrent:
                    idle += [f"{function} of {name!r}" for function in without_gradient(trained, reached)]
                own_settings[name] = changed_settings(original.optimizer, trained.optimizer)
                x, y = outputs
        if handed_on is not None:
            handed_on.append((x, y))
    except RefusedError:
        raise
    except Exception as error:  # the user's: the run reports it with layer and batch
        return name, error
    return None


@contextmanager
def _refusing_changes(name: str, layer: LocalLayer, x: Any, y: Any) -> Iterator[list[Any]]:
    """Refuse a layer if one of its functions changes in place, within the `with` block, what is not its own.

    Gives a list for what the layer hands on. Where the block fails, its exception may only be what the change has led
    to, in torch's words.
    """
    handed_on: list[Any] = []
    changes = InPlaceChanges(layer)
    try:
        with changes.watching():
            yield handed_on
    finally:
        if finding := changes.finding((x, y), handed_on or None):
            remedy = "use operations that are not in place, such as nn.ReLU(inplace=False)"
            raise RefusedError(f"layer {name!r}: {finding}; {remedy}")


def _compare(
    name: str, layer: LocalLayer, x: Any, y: Any, context: Context, generators: Generators, doubts: list[str]
) -> None:
    """Compare training and inference; a layer that raises in evaluation mode is doubted, as it may never be in it."""
    comparison = _Comparison(name, layer, generators, doubts)
    try:
        with torch.no_grad(), context():
            comparison.run(x, y)
    except RefusedError:
        raise
    except Exception as error:
        comparison.doubt(f"in evaluation mode it raises {type(error).__name__}: {error}")


# --- training and inference agree -----------------------------------------------------------------------------------

#: The result of a function that cannot process its input.
_UNKNOWN = object()


class _Comparison:
    """Compares what training and inference compute in one copy of a layer, in evaluation mode."""

    def __init__(self, name: str, layer: LocalLayer, generators: Generators, doubts: list[str]) -> None:
        self.name = name
        self.layer = layer
        self.generators = generators
        self.start = generators.save()
        self.buffers = [(buffer, buffer.clone()) for buffer in layer.buffers()]
        self.doubts = doubts
        #: Whether the layer itself, not the base class, decides how enc and ae are used.
        self.replaced = type(layer).forward is not LocalLayer.forward

    def run(self, x: Any, y: Any) -> None:
        """Raise RefusedError or note a doubt if they differ."""
        layer, kind = self.layer, type(self.layer)
        if isinstance(layer, AL) and not self.replaced:
            code = detach(self.call(layer.ae, y)[1])
            self.compare_side(layer.ae, layer.ae.encode, layer.ae.decode, (y,), y)
            self.compare_side(layer.enc, layer.enc.hidden, layer.enc.bridge, (x, code), code)
        if (hidden := self.infer(layer.hidden, x)) is _UNKNOWN:
            return
        self.infer(layer.readout, hidden)
        # AL's own methods call the same two functions; a second call of them may differ, if f keeps a state.
        if not (isinstance(layer, AL) and not self.replaced and _is_plain(layer)):
            handed_on = self.call(layer, x, y)
            self.expect(f"{kind.__name__}.forward", f"{kind.__name__}.hidden", handed_on[0], hidden)

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
        if kind.forward in (ENC.forward, AE.forward) and not _hooked(side):
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
        """Call a function with the same generator states and buffers every time, in case it changes them."""
        self.generators.restore(self.start)
        for buffer, before in self.buffers:
            buffer.copy_(before)
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
        remedy = f"override {inference.split('.')[-1]} instead of forward, so that both use it"
        if _hooked(self.layer, *self.layer.children()):
            remedy = "a forward hook on the layer or on one side of it acts in training alone: put it on f, b, g or h"
        self.refuse(
            f"{training} and {inference} disagree on the first batch, so predictions would not come from the network "
            f"that was trained; {remedy}"
        )

    def refuse(self, finding: str) -> None:
        """Raise RefusedError with the layer's name."""
        raise RefusedError(f"layer {self.name!r}: {finding}")

    def doubt(self, finding: str) -> None:
        """Note the layer's first finding for the warning."""
        if not any(noted.startswith(repr(self.name)) for noted in self.doubts):
            self.doubts.append(f"{self.name!r} ({' '.join(finding.split())})")


def _is_plain(layer: AL) -> bool:
    """Tell whether training and inference call the same functions, because neither is overridden."""
    kind = type(layer)
    own = kind.compute, kind.inference, kind.hidden, type(layer.enc).forward
    return own == (AL.compute, AL.inference, AL.hidden, ENC.forward) and not _hooked(layer, layer.enc)


def _hooked(*modules: nn.Module) -> bool:
    """Tell whether a hook may change what goes into one of the modules or comes out; inference does not call them."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


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
    for parameter, twin in zip(layer.parameters(), copied.parameters(), strict=True):
        for hook in list((parameter._backward_hooks or {}).values()):  # not copied, but they may draw numbers
            twin.register_hook(hook)  # type: ignore[no-untyped-call]
    return copied
