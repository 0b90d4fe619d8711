"""Nested tensors: every tensor is cut and moved, everything else is left as it is."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage.errors import LayerError
from ALPackage.nested import detach, to_device

Pair = namedtuple("Pair", ["left", "right"])


def grown() -> torch.Tensor:
    """Return a tensor with a history."""
    return torch.ones(2, requires_grad=True) * 2


def test_detach_keeps_the_structure_and_the_values() -> None:
    tree: dict[str, Any] = {"a": [grown(), (grown(), 3)], "b": None, "c": "word", "d": Pair(grown(), 1.5), "e": []}
    cut = detach(tree)
    assert list(cut) == list(tree)
    assert cut["a"][1][1] == 3
    assert cut["b"] is None
    assert cut["c"] == "word"
    assert cut["e"] == []
    assert isinstance(cut["d"], Pair)
    assert cut["d"].right == 1.5
    tensors = [cut["a"][0], cut["a"][1][0], cut["d"].left]
    assert all(not t.requires_grad and t.grad_fn is None and t.tolist() == [2.0, 2.0] for t in tensors)
    assert tree["a"][0].requires_grad, "the original was changed"


def test_the_standard_containers_keep_their_type() -> None:
    ordered = detach(OrderedDict(b=grown(), a=grown()))
    assert isinstance(ordered, OrderedDict)
    assert list(ordered) == ["b", "a"]
    tree = defaultdict(list, {"x": [grown()]})
    cut = detach(tree)
    assert isinstance(cut, defaultdict)
    assert not cut["x"][0].requires_grad


def test_a_single_tensor_and_a_lone_leaf() -> None:
    assert not detach(grown()).requires_grad
    assert detach(5) == 5
    assert to_device("word", torch.device("cpu")) == "word"


def test_to_device_moves_every_tensor_and_copies_none_that_is_there() -> None:
    here = torch.ones(2)
    tree = (here, {"n": 1, "deep": [torch.ones(3)]})
    assert to_device(tree, torch.device("cpu"))[0] is here
    moved = to_device(tree, torch.device("meta"))
    assert moved[0].device.type == moved[1]["deep"][0].device.type == "meta"
    assert moved[1]["n"] == 1


def test_to_device_keeps_the_history() -> None:
    assert to_device([grown()], torch.device("cpu"))[0].grad_fn is not None


@dataclass
class Held:
    """A container that pytree does not know."""

    x: Tensor


class Output(dict[str, Tensor]):
    """A dict of a class of its own."""


class Plain:
    """An object with a tensor."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Slotted:
    """The same, without a __dict__."""

    __slots__ = ("x",)

    def __init__(self, x: Tensor) -> None:
        self.x = x


CONTAINERS = [
    Held,
    lambda x: Output(x=x),
    Plain,
    Slotted,
    lambda x: Plain([x]),
    lambda x: Plain([Plain(Slotted(x))]),  # as a cache of keys and values holds them
    lambda x: x.sum,
    lambda x: SimpleNamespace(x=x),
    lambda x: partial(print, x),
    lambda x: lambda: x,
    lambda x: {x},
    lambda x: UserDict(x=x),
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_of_unknown_structure_is_refused(container: Any) -> None:
    """Guards a bug: its tensors kept their graph, and the next layer's gradient reached into this one."""
    x = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(LayerError, match=r"\w+ passes between layers.*use a tuple, a list or a dict"):
        detach((container(x), x))
    assert detach({"kind": Held, "x": x})["kind"] is Held, "a class is no container"


def test_what_holds_no_graph_is_handed_on_as_it_is() -> None:
    assert detach((torch.Size([1]), grown()))[0] == (1,)
    endless = Plain(torch.ones(2))
    endless.x = endless  # type: ignore[assignment]
    for leaf in (
        torch.float32,
        range(3),
        len,
        endless,
        nn.Linear(2, 2).forward,
        Plain(torch.ones(2)),
        Slotted(torch.ones(2)),
        b"x",
    ):
        assert detach((leaf, grown()))[0] is leaf
