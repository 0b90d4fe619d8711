"""What the four models are made of: a block is one layer of the network, used alike by its BP and its AL form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation(name: str) -> nn.Module:
    """Return a new activation module. Raises ValueError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise ValueError(f"act: got {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


@dataclass(frozen=True)
class Block:
    """One layer `f` of a network and the bridge that AL hangs on it.

    `bridge` is made on demand (a BP form needs none): it maps what `f` returns to a code of the given width.
    """

    name: str
    f: nn.Module
    bridge: Callable[[int], nn.Module]
