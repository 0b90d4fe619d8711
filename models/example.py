"""An input of a network, made up from the shape of its data."""

from __future__ import annotations

from typing import Any

import torch

from .shapes import ImageShape, Shape


def example_of(shape: Shape) -> Any:
    """Return an input of the first block, of two samples: images of zeros, or documents of one token and of all."""
    if isinstance(shape, ImageShape):
        return torch.zeros(2, shape.channels, shape.size, shape.size)
    return torch.ones(2, shape.max_len, dtype=torch.int64), torch.tensor([1, shape.max_len])
