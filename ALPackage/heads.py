"""The head of a network: a linear map to the classes at the end, with the pooling before it."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import fx, nn

from .randomness import Dropout

#: What a head is made of besides the linear map to the classes, beside which it is a part of the head.
OF_A_HEAD = (
    *(nn.Flatten, nn.Identity, nn.Dropout, Dropout, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.AvgPool2d, nn.MaxPool2d),
)
#: What may follow a head.
AFTER_A_HEAD = (nn.Softmax, nn.LogSoftmax)
#: The same as functions, and as a tensor's method.
SOFTMAX = (F.softmax, torch.softmax, "softmax")
LOG_SOFTMAX = (F.log_softmax, torch.log_softmax, "log_softmax")
NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def without_head(named: dict[str, nn.Module], n_classes: int) -> tuple[list[str], dict[str, nn.Module] | None]:
    """Return the names of the blocks that are layers, and the others: a linear map to the classes, with its pooling."""
    names = list(named)
    start = len(names) - 1
    while start > 0 and _only(named[names[start]], (*OF_A_HEAD, *AFTER_A_HEAD)):
        start -= 1
    if not maps_to(named[names[start]], n_classes):
        return names, None
    while start > 0 and _only(named[names[start - 1]], OF_A_HEAD):
        start -= 1
    if start == 0:
        return names, None
    return names[:start], {name: named[name] for name in names[start:]}


def maps_to(block: nn.Module, n_classes: int) -> bool:
    """Tell whether a block is a linear map to the classes, or a row of modules that ends in one.

    What has a forward of its own, such as a residual block, may compute anything.
    """
    leaves = _in_a_row(block)
    while leaves and isinstance(leaves[-1], (*OF_A_HEAD, *AFTER_A_HEAD)):
        leaves.pop()
    if not leaves or not isinstance(leaves[-1], nn.Linear) or leaves[-1].out_features != n_classes:
        return False
    return all(isinstance(one, (nn.Linear, nn.LayerNorm, nn.BatchNorm1d)) or not weighs(one) for one in leaves)


def last_linear(block: nn.Module) -> nn.Linear | None:
    """Return the linear map that a row of modules or a traced forward ends in, or that the block is."""
    last = (_in_a_row(block) or [block])[-1]
    if isinstance(last, fx.GraphModule) and (node := _returned(last)).op == "call_module":
        return last_linear(last.get_submodule(str(node.target)))
    return last if isinstance(last, nn.Linear) else None


def linear_of_a_head(block: nn.Module) -> nn.Linear | None:
    """Return the linear map that a block ends in, if before it there is only what a head has there, or it is traced."""
    alone = isinstance(block, fx.GraphModule) or _only(block, (*OF_A_HEAD, *NORMALIZATIONS, nn.Linear))
    return last_linear(block) if alone else None


def without_softmax(head: nn.Module) -> nn.Module | None:
    """Return a head that ends in logits, in place of one that ends in a softmax; None for any other.

    Cross-entropy takes logits. A logarithm of a softmax does it no harm, and stays.
    """
    if isinstance(head, fx.GraphModule):
        node = _returned(head)
        soft = node.op == "call_module" and isinstance(head.get_submodule(str(node.target)), nn.Softmax)
        if not soft and (node.op == "call_module" or node.target not in SOFTMAX):
            return None
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(head.graph, copies)
        graph.output(copies[node.all_input_nodes[0]])
        graph.erase_node(copies[node])
        return fx.GraphModule(head, graph)
    if type(head) is not nn.Sequential or not len(head):
        return None
    children = list(head.named_children())
    name, last = children[-1]
    if isinstance(last, nn.Softmax):
        return nn.Sequential(OrderedDict(children[:-1]))
    within = without_softmax(last)
    return None if within is None else nn.Sequential(OrderedDict([*children[:-1], (name, within)]))


def _returned(graph: fx.GraphModule) -> fx.Node:
    """Return what a traced forward returns: a tensor, or the first of several."""
    found = graph.graph.output_node().args[0]
    while isinstance(found, (tuple, list)):
        found = found[0]
    assert isinstance(found, fx.Node)
    return found


def _in_a_row(block: nn.Module) -> list[nn.Module]:
    """Return the modules that a row of rows calls one after another; a module that is none, as it is."""
    if type(block) is not nn.Sequential:
        return [block]
    return [leaf for child in block for leaf in _in_a_row(child)]


def _only(block: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    return all(isinstance(one, kinds) for one in _in_a_row(block))


def weighs(block: nn.Module) -> bool:
    """Tell whether a block has weights other than a normalization's."""
    owners = [one for one in block.modules() if one._parameters and not isinstance(one, NORMALIZATIONS)]
    return any(parameter is not None for one in owners for parameter in one._parameters.values())
