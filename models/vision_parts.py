"""Parts that the vision models share: the bridge, the width rule, and fixed pooling."""

from __future__ import annotations

from torch import nn

from ALPackage.bridges import shrink as pooling

from .blocks import activation
from .settings import Activation
from .vision_settings import VisionSettings


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`: unchanged at 1, else rounded to a multiple of 8 (which suits tensor cores)."""
    return channels if width == 1.0 else max(8, round(channels * width / 8) * 8)


def conv_unit(c_in: int, c_out: int, act: Activation, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution with padding, batch normalization and the activation."""
    convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(c_out), activation(act)]


def shrink(size: int, to: int) -> nn.Module:
    """Return average pooling from maps of size x size to maps of (to x to), or what leaves smaller ones as they are."""
    return pooling((size, size), (min(size, to),) * 2)


def bridge_of_maps(channels: int, size: int, code_dim: int, *, settings: VisionSettings) -> nn.Module:
    """Return the bridge of maps (B, channels, size, size) to codes (B, code_dim).

    "pool": average pooling to 2x2, a hidden layer with batch normalization, a linear layer. "conv": the same after
    a 3x3 convolution to at most 128 channels. "pool-conv": the same behind average pooling to 4x4, so that the
    convolution costs little, however large the map is. "deep": 3x3 convolutions with stride 2 that take the map to
    2x2, widening up to 128 channels, then as "pool"; a map of 2x2 or less has no convolutions. "flatten": the whole
    map, a hidden layer with a sigmoid, a linear layer (the thesis'); it soon grows larger than the network.
    """
    act, hidden = settings.act, settings.enc_dim
    kind = settings.resolve({})["bridge"]
    if kind == "flatten":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(channels * size * size, hidden), activation("sigmoid"), nn.Linear(hidden, code_dim)
        )
    front: list[nn.Module] = []
    if kind == "pool-conv":
        front, size = [shrink(size, min(size, 4))], min(size, 4)
    if kind in ("conv", "pool-conv"):
        front += conv_unit(channels, min(channels, 128), act)
        channels = min(channels, 128)
    while kind == "deep" and size > 2:
        wider = min(2 * channels, 128)
        front += conv_unit(channels, wider, act, stride=2)
        channels, size = wider, (size + 1) // 2
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
