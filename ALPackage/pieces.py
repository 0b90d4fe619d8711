"""A traced model in pieces: each a module that takes what the one before it hands on.

What a piece computes and only a later one reads, such as the start of a skip connection over a cut, travels along: then
a tuple is handed on, with what the module that is named returned first. Numbers, such as sizes, do not travel: they are
computed again where they are needed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .bridges import first_tensor
from .nested import tensors
from .traced import MODEL, Call, Traced, before, cloned, mode, result, trace


class Piece(fx.GraphModule):
    """A part of a model, which takes one argument, whatever that is."""


@dataclass(frozen=True)
class Pieces:
    """A model in pieces.

    Attributes:
        layers: The pieces by name.
        head: What follows them and is no layer, if there is anything: it ends in logits (B, n_classes).
        notes: What has been assumed or changed, one line each.
    """

    layers: dict[str, nn.Module]
    head: nn.Module | None
    notes: tuple[str, ...]


def pieces_of(model: nn.Module, cuts: Sequence[str], n_classes: int, example: Any) -> Pieces:
    """Return the pieces of a model; their weights are the model's.

    Args:
        model: Any module that can be called with the example.
        cuts: Names of submodules, in the order in which they are called. A piece ends behind each, and has its name.
            The linear map to the classes and the pooling before it are the head. What stands between the last name and
            the head is a piece too, called "behind_" and that name; without such a map it is the head itself, if it
            returns (B, n_classes).
        n_classes: How many classes.
        example: An input of two samples or more.

    Raises:
        ValueError: For names that do not fit, and for a model that cannot be traced or cut there.
    """
    traced = trace(model, cuts, n_classes, example)
    if "head" in cuts:
        raise ValueError("cuts: no block can be called 'head', which follows the blocks; name the last part of it")
    nodes = list(traced.graph.nodes)
    bounds, mains, names = [], [], list(cuts)
    for name in cuts:
        bound, main = traced.ends[name]
        bounds.append(bound)
        mains.append(main)
    last = result(traced.graph)
    notes = list(traced.notes)
    behind = f"behind_{cuts[-1]}"
    start = len(nodes) - 1 if traced.head is None else nodes.index(traced.head)
    if late := [name for name, bound in zip(cuts, bounds, strict=True) if bound > start]:
        raise ValueError(
            f"cuts: {late[0]!r} belongs to the head, the linear map to {n_classes} classes and the pooling before it, "
            "which is no layer; leave it out"
        )
    if _computes(nodes[bounds[-1] : start]):
        names.append(behind)
        if traced.head is None:
            mains.append(last)
        else:
            bounds.append(start)
            mains.append(before(traced.head) or last)
    elif traced.head is None:
        bounds.pop()
    headed = traced.head is not None
    if headed:
        names.append("head")
        mains.append(last)
    elif names[-1] == behind and last.meta["value"] is not True and last.meta["value"][1:] == (n_classes,):
        headed = True
        notes.append(
            f"what follows {cuts[-1]!r} is taken for the head, and is no layer, because it does not end in a linear "
            f"map to {n_classes} classes; name the last module before the head"
        )
    found = _Cut(nodes, bounds, mains, names, headed).pieces(traced, model)
    _check_same(model, found, example)
    head = found.pop() if headed else None
    return Pieces(dict(zip(names, found, strict=False)), head, tuple(notes))


class _Cut:
    """Which node belongs to which piece, and what passes between them."""

    def __init__(
        self, nodes: list[fx.Node], bounds: list[int], mains: list[fx.Node], names: list[str], headed: bool
    ) -> None:
        self._nodes, self._names = nodes, names
        self._home: dict[fx.Node, int] = {}
        for place, node in enumerate(nodes):
            self._home[node] = sum(bound <= place for bound in bounds)
            if (source := _source(node)) is not None:
                self._home[node] = self._home[source]
        for number, name in enumerate(names):
            if not any(self._home[node] == number and not self._light(node) for node in nodes):
                raise ValueError(
                    f"cuts: nothing is computed between {names[number - 1]!r} and {name!r}; leave one of them out"
                )
        self._rows = self._sizes_of_the_batch(mains)
        self._until = dict(self._home)
        for node in nodes[:-1]:
            if not self._light(node):
                for given in self._inputs(node):
                    self._until[given] = max(self._until[given], self._home[node])
        self._mains = [self._tensor(node, number) for number, node in enumerate(mains)]
        for number in range(1, len(names) - headed):
            if not self._depends(number):
                raise ValueError(
                    f"cuts: {names[number]!r} is not computed from what {names[number - 1]!r} returns: they are "
                    "branches side by side; name the module where they meet instead"
                )

    def pieces(self, traced: Traced, model: nn.Module) -> list[nn.Module]:
        """Return a module for each."""
        found: list[nn.Module] = []
        passed = [self._nodes[0]]
        for number, name in enumerate(self._names):
            main = self._mains[number]
            beside = [one for one in self._nodes if self._home[one] <= number < self._until[one] and one is not main]
            graph, held = self._written(traced, number, passed, passed := [main, *beside])
            piece = Piece(held, graph, class_name=f"{type(model).__name__}_{name.replace('.', '_')}")
            piece.training = model.training
            found.append(piece)
        return found

    def _written(
        self, traced: Traced, number: int, given: list[fx.Node], returned: list[fx.Node]
    ) -> tuple[fx.Graph, dict[str, Any]]:
        """Return the graph of a piece, from nodes of others to its own, and the modules and weights in it by target."""
        graph = fx.Graph()
        held: dict[str, Any] = {}
        x = graph.placeholder("x")
        copies = {given[0]: x}
        if len(given) > 1:
            copies = {node: graph.call_function(operator.getitem, (x, place)) for place, node in enumerate(given)}

        def copied(node: fx.Node) -> fx.Node:
            if self._rows.get(node, number) < number:
                return graph.call_method("size", (copies[given[0]], 0))
            if node not in copies:
                copies[node] = graph.node_copy(node, copied)
                if node.op in ("call_module", "get_attr"):
                    path = str(node.target)
                    copies[node].target = target = path.removeprefix(f"{MODEL}.")
                    held[target] = _attribute(traced.root, path)
            return copies[node]

        for node in self._nodes[1:-1]:
            if self._home[node] == number and not self._light(node):
                copied(node)
        graph.output(copied(returned[0]) if len(returned) == 1 else tuple(map(copied, returned)))
        return graph, held

    def _sizes_of_the_batch(self, mains: list[fx.Node]) -> dict[fx.Node, int]:
        """Return what reads the size of dimension 0, and in which piece is what it reads.

        Later pieces read it of what they are given, so that nothing travels along for it.
        """
        found: dict[fx.Node, int] = {}
        for node in self._nodes:
            arguments = node.args[1:] if node.target in ("size", operator.getitem) else ()
            whole = node.all_input_nodes[0] if arguments == (0,) and len(node.all_input_nodes) == 1 else None
            if whole is not None and whole.meta["value"] is None and (whole.target in ("size", getattr)):
                whole = whole.all_input_nodes[0] if whole.args[1:] in ((), ("shape",)) else None
            shape = None if whole is None else whole.meta["value"]
            if whole is None or not isinstance(shape, tuple) or node.meta.get("value") is not None:
                continue
            if all(isinstance(one.meta["value"], tuple) and one.meta["value"][:1] == shape[:1] for one in mains):
                found[node] = self._home[whole]
        return found

    def _light(self, node: fx.Node) -> bool:
        """Tell whether a node is made anew in each piece that needs it: weights, and what is no tensor."""
        if node.op in ("placeholder", "output", "call_module"):
            return node.op == "output"
        return node.op == "get_attr" or node.meta["value"] is None

    def _inputs(self, node: fx.Node) -> Iterator[fx.Node]:
        """Yield what a node is computed from, through what is made anew."""
        for given in node.all_input_nodes:
            if given in self._rows:
                continue
            if self._light(given):
                yield from self._inputs(given)
            else:
                yield given

    def _tensor(self, node: fx.Node, number: int) -> fx.Node:
        """Return the node of what a piece hands on first: a tensor, or the first in what its last module returns."""
        if node.meta["value"] is True and self._until[node] == self._home[node]:
            within = [one for one in self._nodes if self._home[one] == number and node in one.all_input_nodes]
            node = next((one for one in within if isinstance(one.meta["value"], tuple)), node)
        if number < len(self._names) - 1 and self._until[node] <= number:
            raise ValueError(f"cuts: nothing behind {self._names[number]!r} reads what it returns; name another module")
        return node

    def _depends(self, number: int) -> bool:
        """Tell whether what a piece hands on first is computed from what the piece before it does."""
        before, waiting, seen = self._mains[number - 1], [self._mains[number]], set[fx.Node]()
        while waiting:
            node = waiting.pop()
            if node is before:
                return True
            if node not in seen:
                seen.add(node)
                waiting += node.all_input_nodes
        return False


def _computes(nodes: Sequence[fx.Node]) -> bool:
    """Tell whether any of the nodes computes a tensor."""
    return any(node.meta["value"] is not None and node.op != "get_attr" and _source(node) is None for node in nodes)


def _source(node: fx.Node) -> fx.Node | None:
    """Return the call of whose outputs a node takes one: it is taken where that call is."""
    if node.target not in (operator.getitem, getattr) or not isinstance(source := node.args[0], fx.Node):
        return None
    return source if source.meta["value"] is True and source.op != "placeholder" else None


def _attribute(root: nn.Module, path: str) -> Any:
    holder, _, name = path.rpartition(".")
    return getattr(root.get_submodule(holder), name)


def _check_same(model: nn.Module, pieces: Sequence[nn.Module], example: Any) -> None:
    """Raise ValueError unless the pieces compute what the model does for the example, without training."""
    with torch.no_grad(), mode(model, training=False), mode(nn.ModuleList(pieces), training=False):
        [expected, *_] = tensors(Call(model, example)(cloned(example)))
        x = cloned(example)
        for piece in pieces:
            x = piece(x)
    found = first_tensor(x)
    same = found is not None and found.shape == expected.shape
    if not same or not torch.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True):  # type: ignore[arg-type]
        raise ValueError(
            f"cuts: the pieces of {type(model).__name__} do not compute what it does, because its forward changes a "
            "tensor in place or depends on more than its input; give its blocks as a list, in the order in which they "
            "are called"
        )
