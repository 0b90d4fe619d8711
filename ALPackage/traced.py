"""A model that calls its parts in its own forward, as a graph of these calls: traced with `torch.fx`.

Only the forward of a module that holds a name to cut at is traced, and of one that ends in the linear map to the
classes. Every other module is one call in the graph and runs as it is, whatever its forward does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from .draws import Generators
from .errors import place_of
from .heads import AFTER_A_HEAD, LOG_SOFTMAX, OF_A_HEAD, SOFTMAX, weighs
from .nested import tensors

#: Functions that compute what a module of torch does, with a flag for training that a trace would fix.
DROPOUTS: dict[Any, Callable[[float], nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
}
BY_HAND = "give its blocks as a list, in the order in which they are called"
#: The name of the model within the module that calls it with an input of its first layer.
MODEL = "model"


@dataclass(frozen=True)
class Traced:
    """What a model calls, in order.

    Attributes:
        graph: The calls. The meta of each node has "value", what it returned for the example: a tensor's shape, True
            for another structure that holds tensors, None for anything else.
        root: Where modules and weights of the graph are found by their targets.
        ends: For each name to cut at, how many nodes there are when its call returns, and the node that it returns.
        head: The node with which the head begins, None where there is no head.
        notes: What has been changed, one line each.
    """

    graph: fx.Graph
    root: nn.Module
    ends: dict[str, tuple[int, fx.Node]]
    head: fx.Node | None
    notes: tuple[str, ...]


def trace(model: nn.Module, cuts: Sequence[str], n_classes: int, example: Any) -> Traced:
    """Return the model's graph.

    Raises:
        ValueError: For names that are no submodules, that are not called or more than once, and for a forward that
            cannot be traced.
    """
    check_names(model, cuts)
    opened = {name[:place] for name in cuts for place, letter in enumerate(name) if letter == "."}
    traced = _trace(model, opened, cuts, n_classes, example)
    while traced.head is None and (last := _ends_in_a_map(traced, n_classes)):
        try:
            traced = _trace(model, opened := opened | {last}, cuts, n_classes, example)
        except ValueError:  # then it stays one call
            break
    return traced


def check_names(model: nn.Module, cuts: Any) -> None:
    """Raise ValueError unless these are names of submodules, each once."""
    if isinstance(cuts, str) or not isinstance(cuts, Sequence) or not all(isinstance(name, str) for name in cuts):
        raise ValueError(f'cuts: got {cuts!r}; expected names of submodules, such as cuts=("layer1", "layer2.0")')
    if not cuts:
        raise ValueError("cuts: got none; give the names of the submodules after which the network is cut")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"cuts: a scripted model has no forward to trace; give the model before it, or {BY_HAND[5:]}")
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    within = "module" if parallel else "_orig_mod" if "_orig_mod" in known else None  # the latter of torch.compile
    if within is not None and not {*cuts} <= {*known}:
        raise ValueError(f"cuts: {type(model).__name__} holds the model within: give model.{within} in its place")
    for name in cuts:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; its submodules are {', '.join(known[:8])}, .."
            raise ValueError(f"cuts: {type(model).__name__} has no submodule {name!r}{meant}")
    if len(set(cuts)) < len(cuts):
        raise ValueError("cuts: a name stands twice; give each once")


def _trace(model: nn.Module, opened: set[str], cuts: Sequence[str], n_classes: int, example: Any) -> Traced:
    """Trace in training and in evaluation mode: both have to be the same, but for dropout."""
    tracers = []
    for training in (False, True):
        root, tracer = Call(model, example), _Tracer(opened)
        generators = Generators([])
        states = generators.save()
        try:
            with mode(model, training):
                graph = tracer.trace(root)
        except Exception as error:  # a forward may fail in any way when it is called with what stands for tensors
            name = tracer.inside[-1] if tracer.inside else ""
            where = f"the forward of {_named(model, name)}"
            raise ValueError(
                f"cuts: {where} cannot be traced{place_of(error)}: {type(error).__name__}: {_first_line(error)}; "
                f"{BY_HAND}"
            ) from error
        if generators.changed(states):
            raise ValueError(
                f"cuts: {type(model).__name__}'s forward draws random numbers between its modules, which a trace would "
                f"fix; {BY_HAND}"
            )
        tracers.append((graph, tracer))
    (in_evaluation, _), (graph, tracer) = tracers
    if not _same_but_for_dropout(in_evaluation, graph, root):
        raise ValueError(
            f"cuts: {type(model).__name__}'s forward computes something else in training mode than in evaluation mode, "
            f"besides dropout, and a trace is of one of them; {BY_HAND}"
        )
    changed = _made_out_of_place(graph)
    graph.lint()
    try:
        with torch.no_grad(), mode(root, training=False):
            _Values(fx.GraphModule(root, graph)).run(cloned(example))
    except Exception as error:  # as above
        raise ValueError(
            f"example: {type(model).__name__} does not take it ({type(error).__name__}: {_first_line(error)})"
        ) from error
    notes = [f"{', '.join(changed)} in the forward of the model: made out of place"] if changed else []
    return Traced(graph, root, _ends(model, tracer, cuts), _head(graph, root, n_classes), tuple(notes))


class Call(nn.Module):
    """Calls a model with what stands for an input of the first layer: a tuple are arguments, a dict keywords."""

    def __init__(self, model: nn.Module, example: Any) -> None:
        super().__init__()
        self.add_module(MODEL, model)
        self._keys: list[Any] | None = None
        if isinstance(example, Mapping):
            self._keys = list(example)
        elif isinstance(example, (tuple, list)):
            self._keys = list(range(len(example)))

    def forward(self, x: Any) -> Any:
        model = self.get_submodule(MODEL)
        if self._keys is None:
            return model(x)
        if self._keys and isinstance(self._keys[0], str):
            return model(**{key: x[key] for key in self._keys})
        return model(*[x[key] for key in self._keys])


class _Tracer(fx.Tracer):
    """Traces into the modules that are opened, and notes where the call of every module ends."""

    # Otherwise what is computed of a buffer alone would be a constant of the graph.
    proxy_buffer_attributes = True

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self._opened = {MODEL, *(f"{MODEL}.{name}" for name in opened)}
        self.inside: list[str] = []
        self.calls: dict[str, list[tuple[int, Any]]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._opened

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        name = path.removeprefix(MODEL).removeprefix(".")
        if path in self._opened:
            self.inside.append(name)
        out = super().call_module(m, forward, args, kwargs)
        if path in self._opened:
            self.inside.pop()
        self.calls.setdefault(name, []).append((len(self.graph.nodes), out))
        return out


class _Values(fx.Interpreter):
    """Runs a graph on the example, and notes of what kind the values are."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["value"] = tuple(value.shape) if isinstance(value, Tensor) else True if tensors(value) else None
        return value


def _ends(model: nn.Module, tracer: _Tracer, cuts: Sequence[str]) -> dict[str, tuple[int, fx.Node]]:
    """Return where the calls of the modules with these names end. Raises ValueError for any other order than theirs."""
    ends: dict[str, tuple[int, fx.Node]] = {}
    for name in cuts:
        # A module that has two names has been called by its first.
        path = tracer.path_of_module(model.get_submodule(name)).removeprefix(f"{MODEL}.")
        calls = tracer.calls.get(path, [])
        if not calls:
            parts = [other for other in tracer.calls if other.startswith(f"{name}.")]
            remedy = f"name a part of it, such as {parts[-1]!r}" if parts else "name one that is called"
            raise ValueError(f"cuts: {name!r} is not called in the forward of the model; {remedy}")
        if len(calls) > 1:
            raise ValueError(
                f"cuts: {name!r} is called {len(calls)} times, so that it is not clear where to cut; name a module "
                "that is called once"
            )
        position, out = calls[0]
        node = next((one.node for one in _leaves(out) if isinstance(one, fx.Proxy)), None)
        if node is None:
            raise ValueError(f"cuts: {name!r} returns no tensor; name another module")
        ends[name] = position, node
    in_order = sorted(ends, key=lambda name: ends[name][0])
    if in_order != list(cuts):
        raise ValueError(f"cuts: the model calls them in another order; give them as {tuple(in_order)!r}")
    return ends


def _same_but_for_dropout(in_evaluation: fx.Graph, graph: fx.Graph, root: nn.Module) -> bool:
    """Compare a graph with that in evaluation mode; dropout that its flag switches on becomes a module."""
    places = {node: number for number, node in enumerate(in_evaluation.nodes)}
    places.update({node: number for number, node in enumerate(graph.nodes)})

    def described(node: fx.Node, *, switched: bool) -> Any:
        arguments: Any = fx.node.map_arg((node.args, node.kwargs), lambda one: f"node {places[one]}")
        if switched:
            arguments = [value for value in (*arguments[0], *arguments[1].values()) if not isinstance(value, bool)]
        return node.op, str(node.target), str(arguments)

    if len(in_evaluation.nodes) != len(graph.nodes):
        return False
    for number, (other, node) in enumerate(zip(in_evaluation.nodes, list(graph.nodes), strict=True)):
        if described(other, switched=False) == described(node, switched=False):
            continue
        if node.target not in DROPOUTS or described(other, switched=True) != described(node, switched=True):
            return False
        rate = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
        name = f"traced_dropout_{number}"
        root.add_module(name, DROPOUTS[node.target](rate))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (_given(node),), {}
    return True


def _made_out_of_place(graph: fx.Graph) -> list[str]:
    """Make operations in place ordinary ones where nothing reads afterwards what they change; return their names."""
    changed_ones = []
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = _given(node)
        calls = node.op in ("call_function", "call_method") and isinstance(changed, fx.Node)
        if not calls or any(order[user] > order[node] for user in changed.users):
            continue
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if node.kwargs.get("inplace") is True:
            node.update_kwarg("inplace", False)
        elif name.endswith("_") and hasattr(Tensor, name[:-1]):
            node.op, node.target = "call_method", name[:-1]
        else:
            continue
        changed_ones.append(name)
    return changed_ones


def _given(node: fx.Node) -> Any:
    """Return the first argument."""
    return node.args[0] if node.args else next(iter(node.kwargs.values()), None)


def _head(graph: fx.Graph, root: nn.Module, n_classes: int) -> fx.Node | None:
    """Return the first of the nodes that are a linear map to the classes and the pooling before it."""
    node: fx.Node | None = result(graph)
    while node is not None and not _is_map(node, root, n_classes):
        module = _module(node, root)
        behind = isinstance(module, (*OF_A_HEAD, *AFTER_A_HEAD)) or node.target in (*SOFTMAX, *LOG_SOFTMAX)
        node = before(node) if behind else None
    head = node
    while node is not None and (node := before(node)) is not None and _read_once(node):
        if _pools(node, root):
            head = node
        elif (module := _module(node, root)) is None or weighs(module) or not list(module.parameters()):
            break  # a normalization belongs to the head where pooling stands before it
    return head


def _read_once(node: fx.Node) -> bool:
    """Tell whether one call gets what a node returns, besides those that read its size."""
    return sum(user.op == "output" or user.meta["value"] is not None for user in node.users) == 1


def _pools(node: fx.Node, root: nn.Module) -> bool:
    """Tell whether a node is pooling, or what a head has beside it: no weights, and fewer dimensions or numbers."""
    module, given = _module(node, root), before(node)
    if given is None or (module is not None and list(module.parameters())):
        return False
    # By name too: maps that are 1 x 1 already do not shrink, and whether a head is one hangs on no example's size.
    name = str(node.target) if module is None else type(module).__name__
    kind = "pool" in name.lower() or isinstance(module, OF_A_HEAD)
    shape, given_shape = node.meta["value"], given.meta["value"]
    return kind or len(shape) < len(given_shape) or prod(shape) < prod(given_shape)


def _ends_in_a_map(traced: Traced, n_classes: int) -> str | None:
    """Return the name of the last module with weights if it holds a linear map to the classes as its last part."""
    node: fx.Node | None = result(traced.graph)
    while node is not None and not ((module := _module(node, traced.root)) and weighs(module)):
        node = before(node)
    if node is None:
        return None
    weighted = [one for one in traced.root.get_submodule(str(node.target)).modules() if one is not module]
    linear = [one for one in weighted if isinstance(one, nn.Linear)]
    if not linear or linear[-1].out_features != n_classes:
        return None
    return str(node.target).removeprefix(f"{MODEL}.")


def result(graph: fx.Graph) -> fx.Node:
    """Return the node of what the model returns: its only tensor, or the first of several."""
    output = next(iter(reversed(graph.nodes)))
    found = [one for one in _leaves(output.args[0]) if isinstance(one, fx.Node) and one.meta["value"] is not None]
    if not found:
        raise ValueError("cuts: the model returns no tensor")
    return found[0]


def before(node: fx.Node) -> fx.Node | None:
    """Return the node of the one tensor that a node gets; None if it gets none or several, or returns none."""
    given = [one for one in node.all_input_nodes if one.meta["value"] is not None and one.op != "get_attr"]
    alone = len(given) == 1 and isinstance(given[0].meta["value"], tuple) and isinstance(node.meta["value"], tuple)
    return given[0] if alone and node.op != "placeholder" else None


def _module(node: fx.Node, root: nn.Module) -> nn.Module | None:
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_map(node: fx.Node, root: nn.Module, n_classes: int) -> bool:
    module = _module(node, root)
    return isinstance(module, nn.Linear) and module.out_features == n_classes and len(node.meta["value"]) == 2


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _named(model: nn.Module, name: str) -> str:
    kind = type(model.get_submodule(name)).__name__
    return f"{name!r} ({kind})" if name else kind


def cloned(x: Any) -> Any:
    """Return a nested structure with copies of its tensors."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, x)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode of a module and its parts, and afterwards that which each had."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, one in modes.items():
            module.training = one
