"""ResNet-18 for small images: a stem and eight basic blocks, of 64, 128, 256 and 512 channels, in five layers."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .blocks import Block, activation
from .vision_parts import bridge_of_maps, conv_unit, scaled, shrink

#: Of the eight basic blocks, in order.
CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
#: How many basic blocks each of the five layers has, by the name of the cut; the first layer starts with the stem.
CUTS = {"strides": (1, 2, 2, 2, 1), "groups": (0, 2, 2, 2, 2)}
#: How a block that halves the maps hands them on beside its convolutions.
SHORTCUTS = ("pool", "stride")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them (He et al. 2016, figure 5 left).

    `shortcut`: "stride", theirs: where the maps are halved, it drops every second position. "pool": it reads the means
    of 2x2 positions there (He et al. 2019, ResNet-D), and the last normalization's weights start at zero (Goyal et al.
    2017, section 5.1). So at first a block hands on what it is given, less its detail, and a layer with a loss of its
    own starts out about as good as the layer before it (benchmarks/NOTES.md).
    """

    def __init__(self, c_in: int, c_out: int, stride: int, act: str, shortcut: str) -> None:
        super().__init__()
        last = nn.BatchNorm2d(c_out)
        self.residual = nn.Sequential(
            *conv_unit(c_in, c_out, act, stride), nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), last
        )
        self.shortcut: nn.Module = nn.Identity()
        pooled = shortcut == "pool"
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


def resnet(
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    width: float,
    act: str,
    hidden: int,
    bridge: str,
    cut: str,
    shortcut: str,
) -> tuple[list[Block], nn.Module]:
    """Return ResNet-18's five layers, for images (B, in_channels, image_size, image_size), and its BP head.

    `image_size`: a multiple of 16. `width` scales every channel count. `hidden`: units of the bridge. `cut`: where one
    layer ends and the next begins, the network being the same: "strides", behind the first block of a group, where
    the maps have just been halved; or "groups", behind its second, and then the stem is a layer alone (the thesis').
    `shortcut`: of the blocks.
    """
    if image_size < 16 or image_size % 16:
        raise ValueError(f"resnet: got image_size={image_size}; expected a multiple of 16")
    if cut not in CUTS:
        raise ValueError(f"cut: got {cut!r}; expected one of {', '.join(CUTS)}")
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut: got {shortcut!r}; expected one of {', '.join(SHORTCUTS)}")
    c_in, size = scaled(CHANNELS[0], width), image_size
    parts: list[nn.Module] = conv_unit(in_channels, c_in, act)
    blocks: list[Block] = []
    done = 0
    for number, count in enumerate(CUTS[cut], start=1):
        for index in range(done, done + count):
            c_out, stride = scaled(CHANNELS[index], width), STRIDES[index]
            parts.append(BasicBlock(c_in, c_out, stride, act, shortcut))
            c_in, size = c_out, size // stride
        bridged = partial(bridge_of_maps, c_in, size, hidden=hidden, act=act, kind=bridge)
        blocks.append(Block(f"layer_{number}", nn.Sequential(*parts), bridged))
        parts, done = [], done + count
    head = nn.Sequential(shrink(size, 1), nn.Flatten(), nn.Linear(c_in, n_classes))
    return blocks, head
