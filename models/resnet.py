"""ResNet-18 for small images: a stem and eight basic blocks, of 64, 128, 256 and 512 channels, in five layers."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from .blocks import Block, activation
from .settings import Activation
from .shapes import ImageShape
from .vision_parts import bridge_of_maps, conv_unit, scaled, shrink
from .vision_settings import RESNET_SPLITS, ResNetSettings, resnet_layers

#: Of the eight basic blocks, in order.
CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them (He et al. 2016, figure 5 left).

    `downsample`: what the shortcut does where the maps are halved. "stride", as in their paper: it drops every second
    position. "pool": it takes the means of 2x2 positions (He et al. 2019, ResNet-D), and the weights of the last
    normalization start at zero (Goyal et al. 2017, section 5.1). Then a block at first passes on its input, less the
    detail, and a layer with a loss of its own starts about as good as the layer before it (benchmarks/NOTES.md).
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, act: Activation, downsample: Literal["pool", "stride"]
    ) -> None:
        super().__init__()
        last = nn.BatchNorm2d(c_out)
        self.residual = nn.Sequential(
            *conv_unit(c_in, c_out, act, stride), nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), last
        )
        self.shortcut: nn.Module = nn.Identity()
        pooled = downsample == "pool"
        if stride != 1 or c_in != c_out:
            halved = [nn.AvgPool2d(stride)] if pooled else []
            narrowed = nn.Conv2d(c_in, c_out, 1, 1 if pooled else stride, bias=False)
            self.shortcut = nn.Sequential(*halved, narrowed, nn.BatchNorm2d(c_out))
        if pooled:
            nn.init.zeros_(last.weight)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Return act(residual(x) + shortcut(x)): (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        out: Tensor = self.act(self.residual(x) + self.shortcut(x))
        return out


def resnet(shape: ImageShape, settings: ResNetSettings) -> tuple[list[Block], nn.Module]:
    """Return ResNet-18's five layers and its BP head. The image size must be a multiple of 16.

    The network is the same however it is split. "strides": a layer ends after the first block of a group, where the
    maps have just been halved. "groups": it ends after the second, and the stem is a layer of its own (the thesis').
    """
    if shape.size < 16 or shape.size % 16:
        raise ValueError(f"resnet: got image_size={shape.size}; expected a multiple of 16")
    act, width = settings.act, settings.width
    c_in, size = scaled(CHANNELS[0], width), shape.size
    parts: list[nn.Module] = conv_unit(shape.channels, c_in, act)
    blocks: list[Block] = []
    done = 0
    for name, count in zip(resnet_layers(settings), RESNET_SPLITS[settings.cut], strict=True):
        for index in range(done, done + count):
            c_out, stride = scaled(CHANNELS[index], width), STRIDES[index]
            parts.append(BasicBlock(c_in, c_out, stride, act, settings.shortcut))
            c_in, size = c_out, size // stride
        blocks.append(Block(name, nn.Sequential(*parts), partial(bridge_of_maps, c_in, size, settings=settings)))
        parts, done = [], done + count
    head = nn.Sequential(shrink(size, 1), nn.Flatten(), nn.Linear(c_in, shape.n_classes))
    return blocks, head
