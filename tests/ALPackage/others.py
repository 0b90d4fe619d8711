"""Networks that nobody here wrote, small and with weights at random, as blocks; and what they learn from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks.families import FAMILIES, Blocks
from benchmarks.networks.small_data import CLASSES, batch_of, samples

__all__ = ["CLASSES", "NETWORKS", "batches"]

#: By name: what makes the blocks, and the size of the images; 0: texts.
NETWORKS: dict[str, tuple[Callable[[], Blocks], int]] = {
    name: (partial(family.blocks, CLASSES, True), family.small_side) for name, family in FAMILIES.items()
}


def batches(size: int, count: int, split: str = "train") -> list[tuple[Any, Tensor]]:
    """Return batches of 32 with labels: handwritten digits in three channels, or docstrings of some packages."""
    inputs, labels = samples(size, split)
    # The data sets have their samples class by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return [
        batch_of(inputs, labels, order[torch.arange(32 * number, 32 * (number + 1)) % len(labels)])
        for number in range(count)
    ]
