"""What the small networks learn from: handwritten digits and docstrings, which come with other packages."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from data.text.load import load_text
from data.vision.load import load_vision

from .families import WORDS

CLASSES = 10
#: What is made of them is kept here until the process ends.
FOLDER = TemporaryDirectory()


def samples(size: int, split: str) -> tuple[Any, Tensor]:
    """Return inputs and labels of a split, "train", "val" or "test": images of so many rows, or texts for 0."""
    return images(size, split) if size else texts(split)


def images(size: int, split: str) -> tuple[Tensor, Tensor]:
    """Return float images (rows, 3, size, size) of digits, and their labels."""
    data = load_vision("digits", root=Path(FOLDER.name), image_size=size, val_fraction=0.1, seed=0)
    part = getattr(data, split)
    return (part.inputs.float() / 64 - 2).repeat(1, 3, 1, 1), part.labels


@cache
def texts(split: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return (ids int64 (rows, T), lengths) of docstrings, and the packages that they come from."""
    data = load_text(
        "docstrings",
        root=Path(FOLDER.name),
        max_len=24,
        min_len=3,
        val_fraction=0.1,
        seed=0,
        vocab_size=WORDS,
    )
    part = getattr(data, split)
    ids, lengths = part.inputs
    return (ids.long(), lengths), part.labels


def batch_of(inputs: Any, labels: Tensor, rows: Tensor) -> tuple[Any, Tensor]:
    """Return a batch of these rows."""
    taken = inputs[rows] if isinstance(inputs, Tensor) else tuple(one[rows] for one in inputs)
    return taken, labels[rows]
