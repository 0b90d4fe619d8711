"""What the loader of a vision data set returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

Labeled = tuple[Tensor, Tensor]
"""Images uint8 (rows, C, H, W), labels int64 (rows,) in [0, classes)."""


@dataclass(frozen=True)
class Images:
    """A vision data set as it is stored: the class names, and the official train and test sets.

    All images of a set have one size, which may differ from the one that was asked for: they are resized later. Train
    and test have the same number of channels. `notes`: facts that the user should know, one line each.
    """

    classes: list[str]
    train: Labeled
    test: Labeled
    notes: list[str] = field(default_factory=list)
