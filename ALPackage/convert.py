"""One's own network as a stack of local layers: `to_al`; and the same network for back-propagation: `to_bp`."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from .bridges import BridgeFactory, bridge_to
from .given import whole_number
from .layer import LearningRate, LocalLayer
from .network import Blocks, Network, copy_of, read_network
from .objectives.by_name import make_objective
from .objectives.part import Part
from .stack import ALStack
from .stage.threads import IntraOpThreads


class ConvertedStack(ALStack):
    """A stack that `to_al` has made.

    Attributes:
        network: What it was made of: names, blocks and work of its layers, and the head that was left out. Layers that
            are added later are not in it.
    """

    network: Network

    def append(self, layer: LocalLayer, name: str | None = None) -> None:
        """Add a layer as `ALStack.append` does; for `export` its f is one block, of a name that no other block has."""
        name = f"layer_{len(self) + 1}" if name is None else name
        if name in chain(["head"], *self.network.blocks.values()):
            raise ValueError(f"append: {name!r} is the name of a block of the network; give another name")
        super().append(layer, name)

    def export(self) -> nn.Sequential:
        """Return a copy of the trained network alone: its blocks by name, then "head", the last bridge with decoders.

        It maps what the first layer gets to logits (B, n_classes), as `inference` does, and needs nothing of this
        package but the classes of its modules.
        """
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        layers = [layer.parts() for layer in self]
        for name, layer in zip(self.names, layers, strict=True):
            [f], blocks = layer["hidden"], self.network.blocks.get(name, (name,))
            parts.update(zip(blocks, cast(nn.Sequential, f) if len(blocks) > 1 else [f], strict=True))
        decoders = [module for layer in reversed(layers) for module in layer["decode"]]
        parts["head"] = nn.Sequential(*layers[-1]["readout"], *decoders)
        try:
            return copy_of({"network": nn.Sequential(parts)})["network"]
        except Exception as error:  # a module may fail in any way while it is copied
            words = str(error).partition("\n")[0]
            raise ValueError(f"export: a module cannot be copied ({type(error).__name__}: {words})") from error


def to_al(
    blocks: Blocks | nn.Module,
    n_classes: int,
    *,
    example: Any,
    cuts: Sequence[str] | None = None,
    objective: str = "al",
    layers: int | Sequence[int] | None = None,
    bridge: str | BridgeFactory = "auto",
    copy: bool = True,
    lr: LearningRate = 1e-3,
    optimizer: Callable[..., Optimizer] = torch.optim.Adam,
    **settings: Any,
) -> ConvertedStack:
    """Return a classifier's network as a stack of local layers.

    Args:
        blocks: The network in order: a list of modules, an `nn.Sequential`, or a dict from names. A block gets what the
            one before it returns: the entries of a tuple as arguments, those of a dict by keyword. A linear map to the
            classes at the end, with pooling before it, is its head: local layers have none, and `to_bp` keeps it.
            Or any module, with `cuts`.
        n_classes: How many classes. Labels are int64 (B,).
        example: An input of the first block, of two samples or more; only its shape counts.
        cuts: Names of submodules of a model that is no list, in the order in which they are called, such as ("layer1",
            "layer2.0"): a block ends behind each. The forward of what contains them is traced with `torch.fx`; what
            passes a cut beside it, as a skip connection does, is handed on too. What follows the last name is a block
            as well, but for the head.
        objective: "al", Associated Learning, or another of `ALPackage.objectives.by_name.OBJECTIVES`.
        layers: How many layers: neighboring blocks are joined, so that the largest has as little work as possible, in
            floating-point operations; or how many blocks each layer has, such as [2, 1, 1]. By default every block with
            weights is a layer.
        bridge: From what a layer returns to its codes: "auto", "linear", "hidden", or a function of (output for the
            example, width); see `ALPackage.bridges.bridge_to`.
        copy: Whether the layers get copies of the blocks. Otherwise they get the blocks themselves, whose dropout is
            replaced (`replace_dropout`) and whose operations are made out of place.
        lr, optimizer: Of every layer, as for `AL`. Weights that do not require gradients stay as they are.
        settings: Of the objective, as for its class there: `ALPackage.objectives.associated.Associated` for "al".

    Raises:
        TypeError: For blocks that are no modules, a bridge that is none, and an unknown setting.
        ValueError: For blocks that the example does not go through or that cannot be cut so, for a model that cannot be
            traced, and where there is no bridge for an output.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> stack = to_al(net, 3, example=torch.randn(2, 4))
        >>> stack.names
        ['block_1-block_2', 'block_3-block_4']
        >>> with make_schedule("continuous", stack, threads=1) as schedule:
        ...     losses = list(schedule.run([(torch.randn(8, 4), torch.randint(3, (8,)))] * 4))
        >>> stack.export()(torch.randn(5, 4)).shape
        torch.Size([5, 3])
    """
    local = make_objective(objective, **settings)
    n_classes = _checked_classes(n_classes)
    network = read_network(blocks, n_classes, example, layers, cuts=cuts, copied=copy)
    for note in network.notes:
        warnings.warn(f"to_al: {note}", stacklevel=2)
    parts: list[Part] = []
    for name, f in network.layers.items():
        try:
            found = network.bridge(name, bridge)
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from None
        given = parts[-1].returned if parts else example
        parts.append(Part(name, f, partial(_checked_bridge, name, found), given, network.outputs[name]))
    # With one thread: the last bits of an orthogonal map differ with their number, and so would a run elsewhere.
    with IntraOpThreads(1):
        made = local.layers(parts, n_classes, lr, optimizer)
    stack = ConvertedStack(made, target=local.target(n_classes))
    stack.network = network
    # What is made here is as precise as the network.
    kinds = {one.dtype for f in network.layers.values() for one in f.parameters() if one.is_floating_point()}
    if len(kinds) == 1:
        stack.to(kinds.pop())
    return stack


def to_bp(
    blocks: Blocks | nn.Module,
    n_classes: int,
    *,
    example: Any,
    cuts: Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    copy: bool = True,
) -> nn.Sequential:
    """Return the same network for back-propagation: its layers by name, and "head".

    The weights are those of the blocks, as in what `to_al` makes of them; a network without a head gets the linear
    bridge as one. Arguments and errors are those of `to_al`.

    Example:
        >>> net = to_bp([nn.Linear(4, 16), nn.Linear(16, 3)], 3, example=torch.randn(2, 4))
        >>> list(dict(net.named_children()))
        ['block_1', 'head']
    """
    n_classes = _checked_classes(n_classes)
    network = read_network(blocks, n_classes, example, layers, cuts=cuts, copied=copy)
    head = network.head or bridge_to(list(network.outputs.values())[-1], "linear")(n_classes)
    return nn.Sequential(OrderedDict([*network.layers.items(), ("head", head)]))


def _checked_classes(n_classes: Any) -> int:
    number = whole_number(n_classes)
    if number is None or number < 2:
        raise ValueError(f"n_classes: got {n_classes!r}; expected a whole number of at least 2")
    return number


def _checked_bridge(layer: str, make: Callable[[int], nn.Module], width: int) -> nn.Module:
    """Return the bridge of a layer. Raises TypeError for a function of the user's that returns no module."""
    made = make(width)
    if not isinstance(made, nn.Module):
        raise TypeError(
            f"layer {layer!r}: bridge= returned an object of type {type(made).__name__}; expected an nn.Module from "
            f"what the layer returns to codes (B, {width})"
        )
    return made
