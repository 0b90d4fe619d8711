"""An ordered list of local layers: training calls, and inference at any depth."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .busy import refuse_if_busy
from .devices import set_device
from .errors import UnfitLayersError
from .layer import LearningRate, LocalLayer
from .loading import refuse_other_moments, refuse_other_shapes
from .nested import memory
from .optimized import OF_EVERY_MODULE
from .randomness import Dropout


class Predicted(Protocol):
    """What an `Exit` returns."""

    @property
    def prediction(self) -> Any:
        """The predictions, in the order of the rows."""


class Exit(Protocol):
    """Decides at which depth each sample leaves: an `EarlyExit`."""

    def predict(self, stack: ALStack, x: Any) -> Predicted:
        """Return the predictions of a stack."""


class ALStack(nn.Module):
    """Local layers in order, each with a name (the key in a checkpoint).

    Args:
        layers: A mapping from names to layers, or an iterable, whose layers are named layer_1, layer_2, ...
        target: Turns the y that the loader yields (labels) into y_0; by default y is used as it is.

    Raises:
        ValueError: If there is no layer, if two layers share a parameter, a buffer, memory or a random stream, so that
            they could not be trained independently, or if a layer takes another kind of target than it would be given
            (see `LocalLayer.takes`).
        TypeError: If a layer is not a LocalLayer.

    Example:
        >>> def layer(x, y):
        ...     return AL(ENC(nn.Linear(x, 8), nn.Linear(8, 4)), AE(nn.Linear(y, 4), nn.Linear(4, y)))
        >>> stack = ALStack([layer(6, 3), layer(8, 4)])
        >>> x, y = stack(torch.randn(5, 6), torch.randn(5, 3))
        >>> stack.backward_and_update()
        >>> [sorted(losses) for losses in stack.losses()]
        [['ae', 'assoc'], ['ae', 'assoc']]
        >>> stack.inference(torch.randn(5, 6)).shape  # all layers; depth=1 would use the first alone
        torch.Size([5, 3])
    """

    def __init__(
        self,
        layers: Mapping[str, LocalLayer] | Iterable[LocalLayer],
        target: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        layers = _named(layers)
        if not layers:
            raise ValueError("ALStack: got no layers; give at least one")
        for index, (name, layer) in enumerate(layers.items()):
            _check_is_local(index, name, layer)
        _refuse_one_given_twice(layers)
        self.layers = nn.ModuleDict()
        for name, layer in layers.items():
            self._add(name, layer)
        self.target: Callable[[Any], Any] = _as_it_is if target is None else target
        self.refuse_shared_state()
        self._refuse_unfit_targets()

    def _add(self, name: str, layer: LocalLayer) -> None:
        try:
            self.layers[name] = layer
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"ALStack: a layer cannot have the name {name!r} ({error.args[0]}); use letters, digits and _, and no "
                "name of nn.ModuleDict's own, such as items"
            ) from None

    def refuse_depth(self, got: str, depth: int | None) -> None:
        """Raise ValueError for a number of first layers that the stack does not have; None stands for all.

        `got`: how the message begins, such as "inference: got depth".
        """
        if depth is not None and not 1 <= depth <= len(self):
            raise ValueError(f"{got}={depth}; expected 1 to {len(self)}")

    def refuse_shared_state(self) -> None:
        """Raise UnfitLayersError if two layers share state: while they train at once, timing would decide its value."""
        owners: dict[object, tuple[str, str]] = {}
        for name, layer in self.items():
            for path, state in chain(layer.named_parameters(), layer.named_buffers(), _generators(layer)):
                for key in (id(state), memory(state)):
                    owner, its_path = owners.setdefault(key, (name, path)) if key is not None else (name, path)
                    if owner != name:
                        raise UnfitLayersError(
                            f"ALStack: layers {owner!r} and {name!r} share {its_path!r} of the one and {path!r} of the "
                            "other; give each layer its own copy, or put both modules into one layer"
                        )

    def _refuse_unfit_targets(self) -> None:
        """Raise UnfitLayersError if a layer takes another kind of target than comes from below, where both are said."""
        giver, given = "the stack's target", getattr(self.target, "hands_on", None)
        for name, layer in self.items():
            if None not in (given, layer.takes) and given != layer.takes:
                raise UnfitLayersError(
                    f"ALStack: {giver} hands on {given}, but layer {name!r} takes {layer.takes}; put layers with one "
                    "kind of target into a stack"
                )
            giver, given = f"layer {name!r}", layer.hands_on

    @property
    def names(self) -> list[str]:
        """The names of the layers, first to last."""
        return list(self.layers)

    @property
    def devices(self) -> list[torch.device]:
        """The device of each layer."""
        return [layer.device for layer in self]

    @property
    def placement(self) -> list[torch.device]:
        """Where `set_device` has put each layer: its device, or on the CPU the worker "cpu:K"."""
        return [layer.placement for layer in self]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LocalLayer]:
        return iter(self.layers.values())  # type: ignore[arg-type]

    def items(self) -> Iterator[tuple[str, LocalLayer]]:
        """Iterate over (name, layer), first to last."""
        return iter(self.layers.items())  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> LocalLayer:
        return list(self)[index]

    def append(self, layer: LocalLayer, name: str | None = None) -> None:
        """Add a layer behind the last one: in front of an untrained one stand trained ones, which go on as they are.

        Args:
            layer: It takes what the last layer hands on. Place the stack anew, and make a new schedule: one that was
                made before refuses to run.
            name: By default layer_N, for the N-th layer.

        Raises:
            ValueError: If there is a layer of that name, it shares state with another layer, or it takes another kind
                of target than the last layer hands on; nothing has changed.
            TypeError: If it is not a LocalLayer.

        Example:
            >>> def layer(x, y):
            ...     return AL(ENC(nn.Linear(x, 8), nn.Linear(8, 4)), AE(nn.Linear(y, 4), nn.Linear(4, y)))
            >>> stack = ALStack([layer(6, 3)])
            >>> with make_schedule("continuous", stack, threads=1) as schedule:
            ...     trained = list(schedule.run([(torch.randn(5, 6), torch.randn(5, 3))]))
            >>> stack.append(layer(8, 4))
            >>> stack.names
            ['layer_1', 'layer_2']
        """
        refuse_if_busy(self, "ALStack.append")
        name = f"layer_{len(self) + 1}" if name is None else name
        _check_is_local(len(self), name, layer)
        if name in self.layers:
            raise ValueError(f"ALStack.append: there is a layer {name!r} already; give another name")
        _refuse_one_given_twice({**dict(self.items()), name: layer})
        self._add(name, layer)
        try:
            self.refuse_shared_state()
            self._refuse_unfit_targets()
        except UnfitLayersError:
            del self.layers[name]
            raise

    def load(self, states: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Load weights, buffers and moments of layers by name, as in `Snapshot.state`; return the names of the others.

        The others stay as they are, so that the first layers of a larger stack can be those of a smaller one. Learning
        rates and other options of the optimizers stay too; so do the moments of a layer whose state has no "optimizer".
        Not while a run of the continuous schedule is open.

        Raises ValueError, before anything is loaded, for a layer that the stack does not have, or that the weights of a
        state do not fit, or its moments the layer's optimizer.

        Example:
            >>> def layer(x, y):
            ...     return AL(ENC(nn.Linear(x, 8), nn.Linear(8, 4)), AE(nn.Linear(y, 4), nn.Linear(4, y)))
            >>> snapshot = Snapshot()
            >>> with make_schedule("sequential", ALStack([layer(6, 3)]), threads=1) as schedule:
            ...     trained = list(schedule.run([(torch.randn(5, 6), torch.randn(5, 3)), snapshot]))
            >>> ALStack([layer(6, 3), layer(8, 4)]).load(snapshot.state)
            ['layer_2']
        """
        refuse_if_busy(self, "ALStack.load")
        layers = dict(self.items())
        for name, state in states.items():
            if name not in layers:
                raise ValueError(f"ALStack.load: there is no layer {name!r}; the layers are {', '.join(layers)}")
            refuse_other_shapes(name, layers[name], state)
            refuse_other_moments(name, layers[name], state)
        for name, state in states.items():
            optimizer = layers[name].optimizer
            layers[name].load_state_dict(state["layer"])
            if "optimizer" in state:  # options such as `fused` belong to where the layer is
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]["state"]})
        return [name for name in layers if name not in states]

    def set_device(self, devices: str | list[str]) -> list[torch.device]:
        """Place the layers: "auto" or one device name per layer. See `ALPackage.set_device`."""
        return set_device(self, devices)

    def train(self, mode: bool = True) -> ALStack:
        """Set training mode, or evaluation mode; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, "ALStack.train" if mode else "ALStack.eval")
        super().train(mode)
        return self

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """Return the state of all layers; not while a run of the continuous schedule is open (see `Snapshot`)."""
        refuse_if_busy(self, "ALStack.state_dict")
        return super().state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load the state of all layers; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, "ALStack.load_state_dict")
        return super().load_state_dict(*args, **options)

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over all parameters by name (`parameters` uses it); not while a run of `continuous` is open."""
        refuse_if_busy(self, "ALStack.parameters")
        return super().named_parameters(*args, **options)

    def requires_grad_(self, requires_grad: bool = True) -> ALStack:
        """Freeze or unfreeze all layers; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, "ALStack.requires_grad_")
        super().requires_grad_(requires_grad)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, "a copy of an ALStack")
        return self.__dict__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ALStack:
        """Move or cast all layers; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, "ALStack.to")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Run every layer forward on the batch (x, y), y as the loader yields it; return the last (x, y)."""
        refuse_if_busy(self, "ALStack.forward")
        y = self.target(y)
        for layer in self:
            x, y = layer(x, y)
        return x, y

    def losses(self) -> list[dict[str, Tensor]]:
        """Return the losses of the last batch by name, per layer: detached 0-d tensors."""
        return [layer.losses() for layer in self]

    def backward(self) -> None:
        """Run every layer's local backward pass."""
        for layer in self:
            layer.backward()

    def update(self) -> None:
        """Take every layer's optimizer step."""
        for layer in self:
            layer.update()

    def backward_and_update(self) -> None:
        """Run every layer's `backward_and_update`, one after another."""
        for layer in self:
            layer.backward_and_update()

    def set_lr(self, lr: LearningRate) -> None:
        """Set the learning rate of every layer."""
        for layer in self:
            layer.set_lr(lr)

    def inference(self, x: Any, depth: int | None = None, *, exit: Exit | None = None) -> Any:
        """Return the prediction of the first `depth` layers (all by default), on the first layer's device.

        f_1 .. f_k, then b_k, then h_k .. h_1. `exit`: an `EarlyExit`, with which each sample leaves at a depth of its
        own. Raises ValueError for a depth outside 1 .. number of layers, for both, and as `EarlyExit.predict` does.
        """
        refuse_if_busy(self, "ALStack.inference")
        if exit is not None:
            if depth is not None:
                raise ValueError("inference: got depth and exit; give one of them")
            if not hasattr(exit, "predict"):
                raise TypeError(f"inference: got exit={exit!r}; expected an EarlyExit, such as EarlyExit(0.9)")
            return exit.predict(self, x).prediction
        self.refuse_depth("inference: got depth", depth)
        layers = list(self)[:depth]
        for layer in layers:
            x = layer.hidden(x)
        return self._decode(layers, x)

    def inference_by_depth(self, x: Any) -> list[Any]:
        """Return the predictions of depths 1, 2, ..., all layers, from one pass through the f's."""
        refuse_if_busy(self, "ALStack.inference_by_depth")
        predictions = []
        layers = list(self)
        for depth, layer in enumerate(layers, start=1):
            x = layer.hidden(x)
            predictions.append(self._decode(layers[:depth], x))
        return predictions

    @staticmethod
    def _decode(layers: list[LocalLayer], hidden: Any) -> Any:
        """Return decode_1(.. decode_k(readout_k(hidden)))."""
        code = layers[-1].readout(hidden)
        for layer in reversed(layers):
            code = layer.decode(code)
        return code


def _generators(layer: LocalLayer) -> Iterator[tuple[str, object]]:
    """Yield the random generators that the layer's modules hold; a `Dropout` counts as one."""
    for path, module in layer.named_modules():
        if isinstance(module, Dropout):
            yield path, module
        for name, value in vars(module).items():
            if name in OF_EVERY_MODULE:
                continue
            # NumPy's by its name, because the library does not depend on NumPy.
            if isinstance(value, (torch.Generator, random.Random)) or type(value).__module__.startswith("numpy.random"):
                yield f"{path}.{name}".lstrip("."), value


def _as_it_is(y: Any) -> Any:
    return y


def _named(layers: Any) -> dict[str, Any]:
    """Return the layers by name, from what the caller gave for them."""
    if isinstance(layers, (Mapping, nn.ModuleDict)):
        return dict(layers.items())
    if isinstance(layers, LocalLayer) or not isinstance(layers, Iterable):
        raise TypeError(
            f"ALStack: got an object of type {type(layers).__name__}; give a list of layers, such as ALStack([layer]), "
            "or a dict from names to layers"
        )
    return {f"layer_{number}": layer for number, layer in enumerate(layers, start=1)}


def _check_is_local(index: int, name: str, layer: object) -> None:
    """Raise TypeError with the remedy if `layer` has no local losses."""
    if isinstance(layer, LocalLayer):
        if not hasattr(layer, "optimizer"):
            raise TypeError(f"ALStack: layer {name!r} has no optimizer; set self.optimizer once its modules exist")
        return
    what = f"is of type {type(layer).__name__}, which has no local losses"
    if isinstance(layer, type):
        what, remedy = f"is the class {layer.__name__}", f"make a layer of it: {layer.__name__}(..)"
    elif isinstance(getattr(layer, "module", None), LocalLayer):  # DataParallel and its relatives
        remedy = "give the layer inside it, its .module; a schedule uses several devices by itself"
    elif isinstance(getattr(layer, "_orig_mod", None), LocalLayer):  # torch.compile
        remedy = "compile its functions instead, as in layer.enc.f = torch.compile(layer.enc.f)"
    elif isinstance(layer, ALStack):
        remedy = "give the layers of that stack, as in [*stack]"
    else:
        remedy = "build a layer around it: AL(ENC(f, b), AE(g, h)) with it as f"
    raise TypeError(f"ALStack: layer {name!r} (index {index}) {what}; {remedy}")


def _refuse_one_given_twice(layers: Mapping[str, LocalLayer]) -> None:
    names: dict[int, str] = {}
    for name, layer in layers.items():
        if (first := names.setdefault(id(layer), name)) != name:
            raise ValueError(
                f"ALStack: {first!r} and {name!r} are the same layer; give each place a layer of its own, for example "
                "with copy.deepcopy"
            )
