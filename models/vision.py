"""Parts that the two vision models share: the bridge, the width rule, and fixed pooling."""

from __future__ import annotations

from torch import nn

from .blocks import activation

__all__ = ["BRIDGES", "conv_unit", "pooled_bridge", "scaled", "shrink"]

BRIDGES = ("pool", "conv")


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`: as they are at 1, else rounded to a multiple of 8 (what tensor cores like)."""
    return channels if width == 1.0 else max(8, round(channels * width / 8) * 8)


def conv_unit(c_in: int, c_out: int, act: str, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution with padding, batch normalisation and the activation."""
    convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(c_out), activation(act)]


def shrink(size: int, to: int) -> nn.Module:
    """Return average pooling with a fixed window that takes maps of size x size to (to x to).

    The windows overlap where `to` does not divide `size`. A fixed window, because the backward pass of adaptive
    pooling is not deterministic on a GPU.
    """
    return nn.Identity() if size <= to else nn.AvgPool2d(size - (to - 1) * (size // to), stride=size // to)


def pooled_bridge(channels: int, size: int, code_dim: int, *, hidden: int, act: str, kind: str) -> nn.Module:
    """Return the bridge of maps (B, channels, size, size) to codes (B, code_dim).

    "pool": average-pool to 2x2, a hidden layer with batch normalisation, a linear layer. "conv": the same after
    a 3x3 convolution to at most 128 channels, which costs time and helps the early layers. Flattening whole maps
    instead would make the bridge larger than the network.
    """
    if kind not in BRIDGES:
        raise ValueError(f"bridge: got {kind!r}; expected one of {', '.join(BRIDGES)}")
    front = []
    if kind == "conv":
        front = conv_unit(channels, min(channels, 128), act)
        channels = min(channels, 128)
    side = min(size, 2)
    return nn.Sequential(
        *front,
        shrink(size, side),
        nn.Flatten(),
        nn.Linear(channels * side * side, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        activation(act),
        nn.Linear(hidden, code_dim),
    )
