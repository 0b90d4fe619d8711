"""What the models are made of: a block is one layer of the network, used alike by its BP form and its local forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .settings import Activation

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation(name: Activation) -> nn.Module:
    """Return a new activation module."""
    return ACTIVATIONS[name]()


@dataclass(frozen=True)
class Block:
    """One layer `f` of a network and the bridge that a local objective attaches to it.

    `bridge` is a function, as BP needs none: it returns a new module that maps what `f` returns to (B, width).
    """

    name: str
    f: nn.Module
    bridge: Callable[[int], nn.Module]
