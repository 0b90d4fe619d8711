"""Somebody's network as the layers of a stack: its blocks, named, called one after another, grouped, without the head.

Nothing of it trains yet; `convert` makes local layers of it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .bridges import BridgeFactory, First, bridge_to, first_tensor
from .flops import counting
from .given import whole_number
from .heads import linear_of_a_head, weighs, without_head, without_softmax
from .pieces import Piece, pieces_of
from .placement.over_ranks import over_ranks
from .randomness import replace_dropout
from .traced import cloned

#: What calls one after another, or nothing at all; a subclass may do anything else.
FORWARDS = (nn.Sequential.forward, nn.ModuleDict.forward, nn.ModuleList.forward)
M = TypeVar("M", bound=nn.Module)
Blocks = Iterable[nn.Module] | Mapping[str, nn.Module]


@dataclass(frozen=True)
class Network:
    """The layers of a network by name.

    Attributes:
        layers: What each computes from what the one before it hands on.
        outputs: What each returns for the example.
        blocks: The names of the blocks in each layer.
        flops: The floating-point operations of each layer's forward pass for the example.
        head: The blocks behind the layers that map to the classes, if the network has any.
        notes: What has been changed in the blocks, and what may not have been meant, one line each.
    """

    layers: dict[str, nn.Module]
    outputs: dict[str, Any]
    blocks: dict[str, tuple[str, ...]]
    flops: dict[str, int]
    head: nn.Module | None
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the layers, one line each: name, blocks, and share of the work."""
        total = sum(self.flops.values()) or 1
        width = max(map(len, self.layers))
        return "\n".join(
            f"{name:<{width}}  {self.flops[name] / total:6.1%} of the work: {', '.join(self.blocks[name])}"
            for name in self.layers
        )

    def bridge(self, name: str, kind: str | BridgeFactory = "auto") -> Callable[[int], nn.Module]:
        """Return what makes the bridge of a layer, given the width; see `ALPackage.bridges.bridge_to`."""
        weighted = [one for one in self.layers[name].modules() if one._parameters]
        # One-dimensional convolutions have maps (B, C, T).
        channels_first = bool(weighted) and isinstance(weighted[-1], (nn.Conv1d, nn.BatchNorm1d))
        return bridge_to(self.outputs[name], kind, channels_first=channels_first)


def read_network(
    blocks: Blocks | nn.Module,
    n_classes: int,
    example: Any,
    layers: int | Sequence[int] | None = None,
    *,
    cuts: Sequence[str] | None = None,
    copied: bool = True,
) -> Network:
    """Return the network of these blocks.

    Args:
        blocks: Modules in order: a list, an `nn.Sequential`, or a mapping from names. A block gets what the one before
            it hands on: the entries of a tuple as arguments, those of a dict by keyword.
        n_classes: How many classes; trailing blocks that end in a linear map to so many are the head.
        example: An input of the first block, of two samples or more.
        layers: How many layers the blocks are grouped into, so that the largest has as little work as possible; or how
            many blocks each layer has. By default every block is a layer, together with those behind it that have no
            weights, or a normalization's alone.
        cuts: Names of submodules of a model that is no list, behind which it is cut into blocks; see `pieces_of`.
        copied: Whether the blocks are copied; otherwise they are taken, and changed as `notes` says.

    Raises:
        TypeError: For blocks that are no modules.
        ValueError: For a number of layers that does not fit, and for blocks that the example does not go through.
    """
    head: nn.Module | None = None
    notes: list[str] = []
    if cuts is None:
        named = name_blocks(blocks)
        if copied:
            named = _copied(named)
    else:
        if not isinstance(blocks, nn.Module):
            raise TypeError(
                f"cuts: they are for a model, but blocks is an object of type {type(blocks).__name__}, which is cut "
                "already; leave them out"
            )
        model = _copied({"model": blocks})["model"] if copied else blocks
        pieces = pieces_of(model, cuts, n_classes, example)
        named, head = name_blocks(pieces.layers), pieces.head
        notes += pieces.notes
    notes += _made_fit(named)
    if head is not None:
        _made_fit(within := {"head": head})
        head = within["head"]
    still = [name for name, block in named.items() if not all(module.training for module in block.modules())]
    if still:
        notes.append(
            f"{', '.join(still)}: in evaluation mode, and trained so (dropout does nothing, running statistics stay) "
            "until stack.train() is called; call network.train() before, if that is not meant"
        )
    names = list(named)
    if cuts is None:
        names, behind = without_head(named, n_classes)
        head = None if behind is None else nn.Sequential(OrderedDict(behind))
    if head is None and (linear := linear_of_a_head(named[names[-1]])) and linear.out_features != n_classes:
        notes.append(
            f"{names[-1]}: ends in a linear map, but to {linear.out_features} and not to {n_classes} classes, so it is "
            "trained as a layer; if it was meant as the head, leave it out or give it as many outputs"
        )
    if head is not None and (ending := without_softmax(head)) is not None:
        head = ending.train(head.training)
        notes.append("the softmax at the end is left out of the form for back-propagation, whose loss takes logits")
    if "head" in names:
        raise ValueError(
            f"blocks: 'head' is no head, because it does not end in a linear map to {n_classes} classes; leave it out, "
            "or give it another name to make a layer of it"
        )
    chain, outputs, flops = _walk({name: named[name] for name in names}, example)
    sizes = _sizes(layers, [flops[name] for name in names], [named[name] for name in names])
    found: dict[str, nn.Module] = {}
    members: dict[str, tuple[str, ...]] = {}
    for size in sizes:
        group, names = names[:size], names[size:]
        name = group[0] if size == 1 else f"{group[0]}-{group[-1]}"
        found[name] = chain[group[0]] if size == 1 else nn.Sequential(OrderedDict((one, chain[one]) for one in group))
        members[name] = tuple(group)
    ends = {name: outputs[group[-1]] for name, group in members.items()}
    work = {name: sum(flops[one] for one in group) for name, group in members.items()}
    if cuts is None and head is not None and not isinstance(list(outputs.values())[-1], Tensor):
        # What goes along, such as lengths, ends before the head.
        head = nn.Sequential(OrderedDict([("first", First()), *head.named_children()]))
    return Network(found, ends, members, work, head, tuple(notes))


def name_blocks(blocks: Any) -> dict[str, nn.Module]:
    """Return the blocks by name: their own names, or block_1, block_2, .. where they have none or a number."""
    if isinstance(blocks, (nn.Sequential, nn.ModuleDict, nn.ModuleList)) and type(blocks).forward in FORWARDS:
        # `named_children` leaves out the second place of a module that has two.
        pairs = [(name, block) for name, block in blocks._modules.items() if block is not None]
    elif isinstance(blocks, nn.Module):
        raise TypeError(
            f"blocks: got a {type(blocks).__name__}, whose forward says in what order its parts are called; name those "
            "after which it is cut, such as cuts=('layer1', 'layer2'), or give them as a list, an nn.Sequential, or a "
            "dict from names to modules"
        )
    elif isinstance(blocks, Mapping):
        pairs = list(blocks.items())
    elif isinstance(blocks, Iterable):
        pairs = [("", block) for block in blocks]
    else:
        raise TypeError(f"blocks: got an object of type {type(blocks).__name__}; expected a list of modules")
    if not pairs:
        raise ValueError("blocks: got none; give at least one")
    named: dict[str, nn.Module] = {}
    for number, (name, block) in enumerate(pairs, start=1):
        if not isinstance(block, nn.Module):
            raise TypeError(
                f"blocks: number {number} is an object of type {type(block).__name__}; expected an nn.Module, such as "
                "one of your own that calls it in its forward"
            )
        named[f"block_{number}" if not str(name) or str(name).isdigit() else str(name).replace(".", "_")] = block
    if unfit := [name for name in named if hasattr(nn.Sequential(), name)]:
        raise ValueError(f"blocks: {unfit[0]!r} is a name of nn.Module's own; give the block another one")
    if len(named) < len(pairs):
        raise ValueError("blocks: two have the same name; give each a name of its own, where . counts as _")
    return named


class Called(nn.Module):
    """Call a block with what the one before it hands on, and hand on what it returns.

    The entries of a tuple are arguments, those of a dict keywords. A block that returns a tensor alone, while it got
    more than one thing, has computed the first: the others, such as a mask, are handed on as they are. Of an LSTM's
    output the states are left out, and of an object with several outputs, such as Hugging Face's, all but the first.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Any) -> Any:
        """Return what the next block gets."""
        if isinstance(x, Mapping):
            out = self.block(**x)
        else:
            out = self.block(*x) if isinstance(x, (tuple, list)) else self.block(x)
        if isinstance(self.block, nn.RNNBase) or (isinstance(out, Mapping) and type(out) not in (dict, OrderedDict)):
            out = first_tensor(out)
        if isinstance(out, (tuple, list)):
            there = [one for one in out if one is not None]
            out = there[0] if len(there) == 1 else tuple(there)
        if not isinstance(out, Tensor) or isinstance(x, Tensor):
            return out
        if isinstance(x, Mapping):
            return {**x, next(iter(x)): out}
        return (out, *x[1:]) if len(x) > 1 else out


def _copied(named: dict[str, nn.Module]) -> dict[str, nn.Module]:
    try:
        return copy_of(named)  # all at once: what two of them share stays shared, and is refused later
    except Exception as error:  # a module may fail in any way while it is copied
        raise ValueError(
            f"blocks: they cannot be copied ({type(error).__name__}: {error}); with copy=False they are taken as they "
            "are"
        ) from error


def copy_of(named: dict[str, M]) -> dict[str, M]:
    """Return copies of modules; what the old `torch.nn.utils.weight_norm` has computed is copied without its graph."""
    held = [value for one in named.values() for module in one.modules() for value in vars(module).values()]
    computed = [one for one in held if isinstance(one, Tensor) and not one.is_leaf]
    return copy.deepcopy(named, {id(one): one.detach().clone() for one in computed})


def _made_fit(named: dict[str, nn.Module]) -> list[str]:
    """Change what local layers cannot have, and return what has been changed."""
    changed = []
    for name, block in named.items():
        for path, module in block.named_modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False
                changed.append(f"{name}.{path}".rstrip("."))
        named[name] = replace_dropout(block)
    if not changed:
        return []
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return [f"{changed[0]}{more}: made out of place, because the next layer needs what this one hands on"]


def _walk(named: dict[str, nn.Module], example: Any) -> tuple[dict[str, nn.Module], dict[str, Any], dict[str, int]]:
    """Take the example through the blocks: what calls each, what each returns, and its floating-point operations."""
    chain: dict[str, nn.Module] = {}
    outputs: dict[str, Any] = {}
    flops: dict[str, int] = {}
    x = cloned(example)
    given = first_tensor(x)
    samples = len(given) if given is not None and given.dim() else None
    if samples is not None and samples < 2:
        raise ValueError(
            f"example: got {shapes(x)}, which is {'one sample' if samples else 'none'}; give two or more, as one alone "
            "does not show which dimension is the batch"
        )
    for name, block in named.items():
        called: nn.Module = block if isinstance(block, Piece) else Called(block)
        modes = {module: module.training for module in block.modules()}
        try:
            # Without training there are no statistics to update and no numbers to draw.
            with torch.no_grad(), counting(called) as operations:
                out = called.eval()(x)
                flops[name] = operations()
        except Exception as error:
            raise ValueError(
                f"block {name!r} does not take what it gets, {shapes(x)}: {type(error).__name__}: {error}; "
                + (
                    "a block gets what the one before it returns, a tuple as its arguments and a dict by keyword"
                    if outputs
                    else "the first block gets the example: an input alone, without labels, a tuple as its arguments "
                    "and a dict by keyword"
                )
            ) from error
        finally:
            for module, training in modes.items():
                module.training = training
        if out is None:
            raise ValueError(
                f"block {name!r} returns None; does its forward, of {type(block).__name__}, end without a return?"
            )
        there = first_tensor(out)
        if samples is not None and there is not None and there.shape[:1] != (samples,):
            raise ValueError(
                f"block {name!r} returns {shapes(out)} for {samples} samples; dimension 0 of what blocks hand on has "
                "to be the batch"
            )
        plain = isinstance(x, Tensor) and isinstance(out, Tensor) and not isinstance(block, nn.RNNBase)
        if plain or isinstance(block, Piece):
            called = block
        else:
            called.training = block.training
        chain[name], outputs[name] = called, out
        x = out
    return chain, outputs, flops


def _sizes(layers: int | Sequence[int] | None, flops: Sequence[int], blocks: Sequence[nn.Module]) -> list[int]:
    """Return how many blocks each layer has."""
    count = len(flops)
    number = whole_number(layers)
    if number is None and not (layers is None or isinstance(layers, (list, tuple))):
        raise ValueError(f"layers: got {layers!r}; expected a whole number, or a list of them")
    if layers is None or number is not None:
        starts = [0]
        for place in range(1, count):
            # What stands before the first weights belongs to them.
            if weighs(blocks[place]) and any(map(weighs, blocks[starts[-1] : place])):
                starts.append(place)
        ends = [*starts[1:], count]
        if number is not None:
            if not 1 <= number <= len(starts):
                raise ValueError(
                    f"layers: got {number}, but only {len(starts)} blocks have weights of their own; expected 1 to "
                    f"{len(starts)}"
                )
            work = [sum(flops[start:end]) for start, end in zip(starts, ends, strict=True)]
            ranks = over_ranks([float(one) for one in work], [0] * len(work), number)
            ends = [ends[len(ranks) - 1 - ranks[::-1].index(rank)] for rank in range(number)]
        return [end - start for start, end in pairwise([0, *ends])]
    assert not isinstance(layers, int)
    sizes = [size for one in layers if (size := whole_number(one)) is not None]
    if len(sizes) < len(layers):
        raise ValueError(f"layers: got {layers!r}; expected a whole number, or a list of them")
    if sum(sizes) != count or any(size < 1 for size in sizes):
        raise ValueError(
            f"layers: got {sizes}, which is {sum(sizes)} blocks; expected numbers of at least 1 that make {count}, the "
            "blocks without the head"
        )
    return sizes


def shapes(x: Any) -> str:
    """Return the shapes of a nested structure, for a message."""
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in x.items()) + "}"
    if isinstance(x, (tuple, list)):
        return "(" + ", ".join(map(shapes, x)) + ")"
    return type(x).__name__
