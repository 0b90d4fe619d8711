"""ResNet-18 for small images: a stem and four groups of two basic blocks, with 64, 128, 256, 512 channels."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .blocks import Block, activation
from .vision import bridge_of_maps, conv_unit, scaled, shrink

__all__ = ["resnet"]

CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them (He et al. 2016, figure 5 left)."""

    def __init__(self, c_in: int, c_out: int, stride: int, act: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_unit(c_in, c_out, act, stride),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Return act(residual(x) + shortcut(x)): (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        out: Tensor = self.act(self.residual(x) + self.shortcut(x))
        return out


def resnet(
    *, n_classes: int, in_channels: int, image_size: int, width: float, act: str, hidden: int, bridge: str
) -> tuple[list[Block], nn.Module]:
    """Return ResNet-18's stem and four groups, for images (B, in_channels, image_size, image_size), and its BP head.

    `image_size`: a multiple of 16. `width` scales every channel count. `hidden`: units of the bridge.
    """
    if image_size < 16 or image_size % 16:
        raise ValueError(f"resnet: got image_size={image_size}; expected a multiple of 16")
    bridged = partial(bridge_of_maps, hidden=hidden, act=act, kind=bridge)
    c_in, size = scaled(CHANNELS[0], width), image_size
    stem = nn.Sequential(*conv_unit(in_channels, c_in, act))
    blocks = [Block("stem", stem, partial(bridged, c_in, size))]
    for number, channels in enumerate(CHANNELS, start=1):
        c_out, stride = scaled(channels, width), 1 if number == 1 else 2
        f = nn.Sequential(BasicBlock(c_in, c_out, stride, act), BasicBlock(c_out, c_out, 1, act))
        c_in, size = c_out, size // stride
        blocks.append(Block(f"group_{number}", f, partial(bridged, c_in, size)))
    head = nn.Sequential(shrink(size, 1), nn.Flatten(), nn.Linear(c_in, n_classes))
    return blocks, head
