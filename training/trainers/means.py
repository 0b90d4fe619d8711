"""What a trainer carries from batch to batch beside the model, and the mark that asks for all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

#: {"step": steps taken, "means": of `RunningMeans`, "model": the trainer's own}; tensors are copies, on the CPU.
State = dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """Put it between two batches of an epoch: `ready` gets the state that the batches before it have left."""

    ready: Callable[[State], None]


class RunningMeans:
    """Means over an epoch's batches. The sums, in float64, stay on the devices: reading one makes the host wait.

    A batch's values are one tensor per layer; with `skipping` a layer's is left out where a number in it is not finite.
    """

    def __init__(self, skipping: bool = False) -> None:
        self._skipping = skipping
        self._sums: list[Tensor] = []
        self._left_out: list[Tensor] = []
        self._count = 0

    def add(self, values: list[Tensor]) -> None:
        """Add one batch's values, the same number of tensors every time."""
        if not self._sums:
            self._sums = [torch.zeros_like(value, dtype=torch.float64) for value in values]
            self._left_out = [torch.zeros((), dtype=torch.int64, device=value.device) for value in values]
        self._sums = [total.to(value.device) for total, value in zip(self._sums, values, strict=True)]
        if self._skipping:
            self._left_out = [count.to(value.device) for count, value in zip(self._left_out, values, strict=True)]
            for count, value in zip(self._left_out, values, strict=True):
                count.add_(~torch.isfinite(value).all())
            values = [torch.where(torch.isfinite(value).all(), value, torch.zeros_like(value)) for value in values]
        for total, value in zip(self._sums, values, strict=True):
            total.add_(value)
        self._count += 1

    def values(self) -> list[Any]:
        """Return the means as numbers, or lists of them; NaN where every batch was left out."""
        counts = [self._count - int(count) for count in self._left_out]
        return [
            (total / count if count else total * math.nan).tolist()
            for total, count in zip(self._sums, counts, strict=True)
        ]

    def left_out(self) -> list[int]:
        """Return how many batches were left out of each mean."""
        return [int(count) for count in self._left_out]

    def clear(self) -> None:
        """Begin an epoch."""
        self._sums, self._left_out, self._count = [], [], 0

    def state(self) -> State:
        """Return a copy."""
        return {"sums": copy_state(self._sums), "left_out": copy_state(self._left_out), "count": self._count}

    def load(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._sums, self._left_out = copy_state(state["sums"]), copy_state(state["left_out"])
        self._count = state["count"]


class LossWatch:
    """Finds the first loss that is not finite, and looks only every `EVERY` batches: a look makes the host wait."""

    EVERY = 50

    def __init__(self) -> None:
        self._seen: list[tuple[int, list[Tensor]]] = []

    def add(self, step: int, losses: list[Tensor]) -> tuple[int, int, list[float]] | None:
        """Note a batch's losses, one tensor per layer; look at all that were noted where it is time, as `look` does."""
        self._seen.append((step, losses))
        return self.look() if len(self._seen) >= self.EVERY else None

    def look(self) -> tuple[int, int, list[float]] | None:
        """Return (step, number of the layer, its losses) of the first that are not finite, if any are."""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        # One transfer per layer, not per batch.
        layers = [torch.stack([losses[layer] for _, losses in seen]).cpu() for layer in range(len(seen[0][1]))]
        fine = torch.stack([torch.isfinite(layer).reshape(len(seen), -1).all(1) for layer in layers], 1)
        if bool(fine.all()):
            return None
        batch, layer = (~fine).nonzero()[0].tolist()
        return seen[batch][0], layer, layers[layer][batch].reshape(-1).tolist()


def copy_state(tree: Any) -> Any:
    """Return the same nested structure with copies of its tensors on the CPU."""
    return tree_map(lambda leaf: leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf, tree)


def all_finite(tree: Any) -> bool:
    """Tell whether every number in the tensors of the structure is finite."""
    return all(bool(torch.isfinite(leaf).all()) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
