"""What a builder must know beside the settings: the data's shape, and how the layers are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """Images float (B, channels, size, size) of `n_classes` classes."""

    n_classes: int
    channels: int
    size: int


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """Documents of `n_classes` classes, as tokens into `vectors`: float (V, D), with which the embedding starts."""

    n_classes: int
    vectors: Tensor
    max_len: int = 64
    """How many tokens a document has at most."""


Shape = ImageShape | TextShape


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the layers of an objective are trained; BP's trainer takes the same values from the configuration."""

    lr: float
    """Learning rate at the start."""
    weight_decay: float = 0.0
    """Decoupled decay of the weights."""
    label_smoothing: float = 0.0
    """Share of the target that goes to all classes alike."""
    code_dim: int = 128
    """Width of the codes that bridges map to."""
    example: Any = None
    """An input of the first block, of two samples, of which only structure, shapes and dtypes count."""
