"""Small AL layers and their batches: one of scalars, whose numbers are worked out by hand, and dense ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ALPackage.base import AE, AL, ENC

X = torch.tensor([[1.0], [2.0]])
Y = torch.tensor([[1.0], [3.0]])


def weight(value: float) -> nn.Linear:
    """Return the map x -> value * x, of one feature."""
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, value)
    return linear


def scalar_layer(**options: Any) -> AL:
    """Return the layer with f = 2x, b = 3x, g = y / 2, h = 4y."""
    return AL(ENC(weight(2.0), weight(3.0)), AE(weight(0.5), weight(4.0)), **options)


def weights(layer: AL) -> list[float]:
    """Return the weights of f, b, g, h of a scalar layer."""
    return [m.weight.item() for m in (layer.enc.f, layer.enc.b, layer.ae.g, layer.ae.h)]  # type: ignore[operator]


def dense_layer(x: int = 6, hidden: int = 5, y: int = 3, code: int = 4, kind: type[AL] = AL, **options: Any) -> AL:
    """Return a layer of small random linear maps."""
    enc = ENC(nn.Sequential(nn.Linear(x, hidden), nn.Tanh()), nn.Linear(hidden, code))
    return kind(enc, AE(nn.Linear(y, code), nn.Linear(code, y)), **options)


def dense_batches(count: int, x: int = 6, y: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Return `count` random batches of 7 samples."""
    return [(torch.randn(7, x), torch.randn(7, y)) for _ in range(count)]


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules of one shape have the same parameters, bit for bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
