"""Networks that nobody here wrote, small and with weights at random, as blocks; and what they learn from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks.families import FAMILIES, WORDS, Blocks
from data.text.load import load_text
from data.vision.load import load_vision

CLASSES = 10
#: These data sets come with other packages; what is made of them is kept here until the tests end.
FOLDER = TemporaryDirectory()


#: By name: what makes the blocks, and the size of the images; 0: texts.
NETWORKS: dict[str, tuple[Callable[[], Blocks], int]] = {
    name: (partial(family.blocks, CLASSES, True), family.small_side) for name, family in FAMILIES.items()
}


def batches(size: int, count: int, split: str = "train") -> list[tuple[Any, Tensor]]:
    """Return batches of 32 with labels: handwritten digits in three channels, or docstrings of some packages."""
    inputs, labels = images(size, split) if size else texts(split)
    # The data sets have their samples class by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    found = []
    for number in range(count):
        rows = order[torch.arange(32 * number, 32 * (number + 1)) % len(labels)]
        found.append((inputs[rows] if isinstance(inputs, Tensor) else tuple(x[rows] for x in inputs), labels[rows]))
    return found


def images(size: int, split: str) -> tuple[Tensor, Tensor]:
    """Return float images (rows, 3, size, size) of digits, and their labels."""
    data = load_vision("digits", root=Path(FOLDER.name), image_size=size, val_fraction=0.1, seed=0)
    part = getattr(data, split)
    return (part.inputs.float() / 64 - 2).repeat(1, 3, 1, 1), part.labels


@cache
def texts(split: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return (ids int64 (rows, T), lengths) of docstrings, and the packages that they come from."""
    load = partial(load_text, "docstrings", root=Path(FOLDER.name), max_len=24, min_len=3, val_fraction=0.1, seed=0)
    part = getattr(load(vocab_size=WORDS), split)
    ids, lengths = part.inputs
    return (ids.long(), lengths), part.labels
