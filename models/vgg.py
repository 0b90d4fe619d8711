"""VGG for small images: four blocks, each halving the map: [128, 256] [256, 512] [512] [512] channels."""

from __future__ import annotations

from functools import partial

from torch import nn

from .blocks import Block, activation
from .shapes import ImageShape
from .vision_parts import bridge_of_maps, conv_unit, scaled, shrink
from .vision_settings import VGGSettings, vgg_layers

#: Of the convolutions in each block.
CHANNELS = ((128, 256), (256, 512), (512,), (512,))
#: Hidden units of the head.
HEAD = 2500


def vgg(shape: ImageShape, settings: VGGSettings) -> tuple[list[Block], nn.Module]:
    """Return VGG's four blocks and its BP head. The image size must be a multiple of 16."""
    act, width = settings.act, settings.width
    if shape.size < 16 or shape.size % 16:
        raise ValueError(f"vgg: got image_size={shape.size}; expected a multiple of 16, as it halves the image 4 times")
    blocks: list[Block] = []
    c_in, size = shape.channels, shape.size
    for name, channels in zip(vgg_layers(settings), CHANNELS, strict=True):
        units: list[nn.Module] = []
        for c in channels:
            units += conv_unit(c_in, scaled(c, width), act)
            c_in = scaled(c, width)
        size //= 2
        f = nn.Sequential(*units, nn.MaxPool2d(2))
        blocks.append(Block(name, f, partial(bridge_of_maps, c_in, size, settings=settings)))
    side = min(size, 2)
    units_in_head = scaled(HEAD, width)
    head = nn.Sequential(
        shrink(size, side),
        nn.Flatten(),
        nn.Linear(c_in * side * side, units_in_head),
        activation(act if settings.head_act == "auto" else settings.head_act),
        nn.Linear(units_in_head, shape.n_classes),
    )
    return blocks, head
