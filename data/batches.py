"""Batches of a split. Order and augmentation depend on (seed, epoch, batch) and not on what was drawn before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ALPackage.randomness import generator

from .dataset import Inputs, Split

Transform = Callable[[Any, torch.Generator | None], Any]
"""Turns the inputs of a batch, on its device, into what the network takes; None in place of a generator: draw nothing.

A transform that needs a number from the batch, as a length, would wait for the GPU to read it there. It may have a
method `before_transfer(inputs) -> inputs`, which `Batches` calls while the batch is still on the CPU.
"""


class Batches:
    """Iterate over a split as (inputs, labels int64) on `device`.

    With a `seed` the order is shuffled by (seed, epoch), and `transform` gets a generator of its own for each batch, on
    `device`. Without one the order is the split's, and `transform` gets None. If the last batch would have a single
    sample, that sample joins the batch before, because batch normalization cannot train on one sample. The first
    `done` batches are left out: a resumed epoch continues after those it had trained on.

    On a GPU the copies run beside the host's work: nothing here waits for them.
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
        before_transfer = getattr(self.transform, "before_transfer", None)
        for number, (start, stop) in list(enumerate(self.bounds))[self.done :]:
            inputs, labels = self.split.rows(order[start:stop])
            if before_transfer is not None:
                inputs = before_transfer(inputs)
            draw = None
            if self.seed is not None:
                draw = generator("augment", self.seed, self.epoch, number, device=self.device)
            yield self.transform(_to_device(inputs, self.device), draw), _to_device(labels, self.device)


def _to_device(inputs: Inputs, device: torch.device) -> Any:
    if isinstance(inputs, tuple):
        return tuple(_to_device(part, device) for part in inputs)
    if device.type == "cuda" and inputs.device.type == "cpu":
        # Only a copy from pinned memory is asynchronous. torch keeps the pinned block until the copy is done.
        return inputs.pin_memory().to(device, non_blocking=True)
    return inputs.to(device)
