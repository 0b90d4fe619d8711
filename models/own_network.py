"""A network of the user's own, a function that returns its blocks, as layers with bridges and a head for BP.

The commands use it; in a program of one's own, `ALPackage.to_al` does the same.
"""

from __future__ import annotations

import inspect
import traceback
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ALPackage.heads import last_linear
from ALPackage.nested import memory
from ALPackage.network import FORWARDS, Network, name_blocks, read_network, shapes

from .blocks import Block
from .example import example_of
from .network_settings import NetworkSettings
from .registry import RegistryError
from .shapes import Shape

#: The weights that the functions returned when they were called last, by what the user has typed.
_RETURNED: dict[str, list[weakref.ref[nn.Parameter]]] = {}


def cut(typed: str, function: Callable[..., Any], shape: Shape, settings: NetworkSettings) -> Network:
    """Return the layers of the network that `function` returns; `typed`: how the user has named it.

    Its weights are drawn from torch's process-wide generator. Raises RegistryError, one line, for what cannot be
    trained.
    """
    made, cuts = _apart(typed, _called(typed, function, shape))
    _check_new(typed, made)
    try:
        named = name_blocks(made) if cuts is None else {type(made).__name__: made}
        still = [name for name, block in named.items() if not all(module.training for module in block.modules())]
        for block in named.values():
            block.train()
        blocks = named if cuts is None else made
        network = read_network(blocks, shape.n_classes, example_of(shape), settings.network_layers, cuts=cuts)
    except (TypeError, ValueError) as error:
        said = str(error)
        raise RegistryError(f"network_{said}" if said.startswith("layers: ") else f"network {typed}: {said}") from None
    _check_names(typed, network)
    _check_outputs(typed, network, shape.n_classes)
    _check_apart(typed, network)
    if not still:
        return network
    note = f"{', '.join(still)}: in evaluation mode; a command trains all modules in training mode"
    return Network(**{**vars(network), "notes": (note, *network.notes)})


def blocks_and_head(
    typed: str, function: Callable[..., Any], shape: Shape, settings: NetworkSettings
) -> tuple[list[Block], nn.Module]:
    """Return the network as `models.registry.ModelEntry.build` does: a block per layer, and the head for BP.

    A network without a head gets the linear bridge as one. Errors are those of `cut`.
    """
    network = cut(typed, function, shape, settings)
    blocks = []
    for name, f in network.layers.items():
        try:
            blocks.append(Block(name, f, network.bridge(name, settings.network_bridge)))
        except ValueError as error:
            raise RegistryError(f"network {typed}: layer {name}: {error}") from None
    head = network.head or network.bridge(list(network.layers)[-1], "linear")(shape.n_classes)
    return blocks, head


def _called(typed: str, function: Callable[..., Any], shape: Shape) -> Any:
    """Return what the function returns."""
    if isinstance(function, nn.Module):
        raise RegistryError(
            f"network {typed}: is a network and no function; give a function that makes a new one, so that every turn "
            "starts with weights of its own"
        )
    arguments = (shape,) if _takes_shape(function) else ()
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:  # one that ends the program would end this one without a word
        # The last line that is the user's, not one of a library that it calls.
        frames = traceback.extract_tb(error.__traceback__)[1:]
        file = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isroutine(function) else None
        own = [frame for frame in frames if frame.filename == file] or frames
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        given = f"called with {type(shape).__name__}" if arguments else "called without arguments"
        has = f"; {type(shape).__name__} has {', '.join(one.name for one in fields(shape))}" if arguments else ""
        raise RegistryError(
            f"network {typed}: the function, {given}, raised {type(error).__name__}: {error}{where}{has}"
        ) from error


def _check_new(typed: str, made: Any) -> None:
    """Raise RegistryError for weights that the function has returned before, which are not drawn for this turn."""
    blocks = made.values() if isinstance(made, Mapping) else made if isinstance(made, (list, tuple)) else [made]
    weights = [one for block in blocks if isinstance(block, nn.Module) for one in block.parameters()]
    before = _RETURNED.get(typed, [])
    if any(one.requires_grad and one is known() for one in weights for known in before):
        raise RegistryError(
            f"network {typed}: the function returned modules that it had returned before; let it make new ones when "
            "it is called, so that every method and turn starts with weights of its own seed"
        )
    _RETURNED[typed] = [weakref.ref(one) for one in weights]


def _apart(typed: str, made: Any) -> tuple[Any, Any]:
    """Return the blocks and None, or a model and the names after which it is cut."""
    if isinstance(made, tuple) and len(made) == 2:
        model, cuts = made
        if isinstance(model, nn.Module) and not isinstance(cuts, nn.Module):
            return model, cuts
    if made is None:
        raise RegistryError(f"network {typed}: the function returned None; does it end without a return?")
    if isinstance(made, nn.Module) and type(made).forward not in FORWARDS:
        raise RegistryError(
            f"network {typed}: the function returned a {type(made).__name__}, whose forward says in what order its "
            "parts are called; let it return the names of those after which it is cut too, such as return model, "
            '["layer1", "layer2"], or a list of blocks, an nn.Sequential, or a dict from names to modules'
        )
    return made, None


def _takes_shape(function: Callable[..., Any]) -> bool:
    """Tell whether a function wants the data's shape: its first argument has no default, or is called shape."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function that is not written in Python may not tell
        return False
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in by_position:
        return False
    return parameters[0].default is inspect.Parameter.empty or parameters[0].name == "shape"


def _check_names(typed: str, network: Network) -> None:
    """Raise RegistryError for a layer's name that `nn.ModuleDict`, which holds the layers, has for itself."""
    if unfit := [name for name in network.layers if hasattr(nn.ModuleDict(), name)]:
        raise RegistryError(f"network {typed}: {unfit[0]!r} is a name of nn.ModuleDict's own; rename the block")


def _check_outputs(typed: str, network: Network, n_classes: int) -> None:
    """Raise RegistryError for a head that does not fit, and for a last linear map to another number of classes."""
    if network.head is not None:
        given = list(network.outputs.values())[-1]
        try:
            with torch.no_grad():
                logits = network.head.eval()(given)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise RegistryError(
                f"network {typed}: the head does not take what it gets, {shapes(given)}: {said}"
            ) from error
        network.head.train()
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, n_classes):
            raise RegistryError(
                f"network {typed}: the head returns {shapes(logits)} for 2 samples; expected logits (2, {n_classes})"
            )
        return
    last = last_linear(list(network.layers.values())[-1])
    if last is not None and last.out_features != n_classes:
        raise RegistryError(
            f"network {typed}: ends in a linear map to {last.out_features} outputs, and the data has {n_classes} "
            "classes; give it that many (shape.n_classes), or an activation behind it if it is no head"
        )


def _check_apart(typed: str, network: Network) -> None:
    """Raise RegistryError where two layers share weights: they could not be trained independently."""
    owners: dict[object, tuple[str, str]] = {}
    for name, f in network.layers.items():
        for path, state in chain(f.named_parameters(), f.named_buffers()):
            for key in (id(state), memory(state)):
                owner, its_path = owners.setdefault(key, (name, path)) if key is not None else (name, path)
                if owner != name:
                    raise RegistryError(
                        f"network {typed}: layers {owner} and {name} share {its_path} of the one and {path} of the "
                        "other; give each a module of its own, or join their blocks in one layer with network_layers"
                    )
