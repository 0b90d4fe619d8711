"""A tiny VGG: plain ENC, AE and AL, as they are."""

from __future__ import annotations

from ALPackage.base import *  # noqa: F403
from ALPackage.base import AE, AL, ENC, nn

from .model import Model


def conv_layer(inp: int, out: int, size: int, y: int, code: int) -> AL:
    f = nn.Sequential(nn.Conv2d(inp, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    b = nn.Sequential(nn.Flatten(), nn.Linear(out * size * size, code), nn.Sigmoid())
    g = nn.Sequential(nn.Linear(y, code), nn.Sigmoid())
    h = nn.Sequential(nn.Linear(code, y), nn.Sigmoid())
    return AL(ENC(f, b), AE(g, h, cri=nn.MSELoss()))


class VGG(Model):
    """Two convolutions of images (B, 3, 8, 8)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__([conv_layer(3, 4, 4, classes, 6), conv_layer(4, 5, 2, 6, 5)])
