"""Batches of a split: the order and the augmentation depend on (seed, epoch, batch), on nothing that was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ALPackage.randomness import generator

from .dataset import Split

Transform = Callable[[Any, torch.Generator | None], Any]


class Batches:
    """Iterate over a split as (inputs, labels int64) on `device`.

    With a `seed` the order is shuffled by (seed, epoch) and `transform` gets a generator of its own per batch,
    on `device`; without one the order is the split's and `transform` gets None. A last batch of a single
    sample joins its predecessor, because batch normalization cannot train on one sample. The first `done` batches are
    left out: who goes on with an epoch has had them.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        epoch: int = 0,
        done: int = 0,
    ) -> None:
        self.split, self.transform, self.device = split, transform, torch.device(device)
        self.seed, self.epoch, self.done = seed, epoch, done
        n = len(split)
        starts = list(range(0, n, batch_size))
        if len(starts) > 1 and n - starts[-1] == 1:
            starts.pop()
        self.bounds = list(zip(starts, [*starts[1:], n], strict=True))

    def __len__(self) -> int:
        return len(self.bounds) - self.done

    def order(self) -> Tensor:
        """Return the positions of the split in the order in which they are visited, int64 (N,)."""
        if self.seed is None:
            return torch.arange(len(self.split))
        return torch.randperm(len(self.split), generator=generator("order", self.seed, self.epoch))

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        order = self.order()
        for number, (start, stop) in list(enumerate(self.bounds))[self.done :]:
            inputs, labels = self.split.rows(order[start:stop])
            if isinstance(inputs, tuple):
                inputs = tuple(part.to(self.device) for part in inputs)
            else:
                inputs = inputs.to(self.device)
            draw = None
            if self.seed is not None:
                draw = generator("augment", self.seed, self.epoch, number, device=self.device)
            yield self.transform(inputs, draw), labels.to(self.device)
