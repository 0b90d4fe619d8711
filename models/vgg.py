"""VGG for small images: four blocks, each halving the map: [128, 256] [256, 512] [512] [512] channels."""

from __future__ import annotations

from functools import partial

from torch import nn

from .blocks import Block, activation
from .vision_parts import bridge_of_maps, conv_unit, scaled, shrink

CHANNELS = ((128, 256), (256, 512), (512,), (512,))
HEAD = 2500


def vgg(
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    width: float,
    act: str,
    head_act: str,
    hidden: int,
    bridge: str,
) -> tuple[list[Block], nn.Module]:
    """Return VGG's four blocks, for images (B, in_channels, image_size, image_size), and its BP head.

    `image_size`: a multiple of 16. `width` scales every channel count and the head. `hidden`: units of the bridge.
    `head_act`: activation in the BP head.
    """
    if image_size < 16 or image_size % 16:
        raise ValueError(f"vgg: got image_size={image_size}; expected a multiple of 16, as it halves the image 4 times")
    blocks: list[Block] = []
    c_in, size = in_channels, image_size
    for number, channels in enumerate(CHANNELS, start=1):
        units: list[nn.Module] = []
        for c in channels:
            units += conv_unit(c_in, scaled(c, width), act)
            c_in = scaled(c, width)
        size //= 2
        f = nn.Sequential(*units, nn.MaxPool2d(2))
        blocks.append(
            Block(f"conv_{number}", f, partial(bridge_of_maps, c_in, size, hidden=hidden, act=act, kind=bridge))
        )
    side = min(size, 2)
    units_in_head = scaled(HEAD, width)
    head = nn.Sequential(
        shrink(size, side),
        nn.Flatten(),
        nn.Linear(c_in * side * side, units_in_head),
        activation(head_act),
        nn.Linear(units_in_head, n_classes),
    )
    return blocks, head
