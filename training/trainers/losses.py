"""The losses of an epoch by name: their means, and a watch for numbers that are not finite.

Sums stay on the devices, because reading a number makes the host wait, and the host feeds the pipeline. Per batch and
device this costs two small kernels, however many layers and losses there are: one that stacks the losses, one that
adds them to the sums. A loss that is NaN or infinite makes its sum so for good; the sums are therefore the flag that
is read now and then, and the losses of the batches since the last look say which batch it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

#: The losses of a batch, a mapping from name to 0-d tensor per layer.
BatchLosses = Sequence[Mapping[str, Tensor]]
#: Mean losses by layer and name. A network with a single loss, which belongs to no layer, is the layer "".
MeanLosses = dict[str, dict[str, float]]


@dataclass(frozen=True)
class BadLoss:
    """The first batch since the last look with a loss that is not finite, and that layer's losses."""

    step: int
    layer: str
    losses: dict[str, float]


class EpochLosses:
    """Means of the losses over the batches of an epoch.

    `names`: the names of the losses of every layer, in order. With `skipping`, a layer's losses of a batch are left
    out, and counted, if one of them is not finite.
    """

    #: Batches between two looks at the sums.
    EVERY = 50

    def __init__(self, names: Mapping[str, Sequence[str]], skipping: bool = False) -> None:
        self.names = {layer: tuple(losses) for layer, losses in names.items()}
        self.skipping = skipping
        #: How many of the layers train, the first ones; the others have no losses.
        self.layers = len(self.names)
        self.clear()

    def clear(self) -> None:
        """Start an epoch."""
        self._devices: list[_Device] = []
        self._sums: MeanLosses = {layer: dict.fromkeys(losses, 0.0) for layer, losses in self.names.items()}
        self._skipped = dict.fromkeys(self.names, 0)
        self._count = 0
        self._steps: list[int] = []

    def add(self, step: int, losses: BatchLosses) -> None:
        """Add the losses of the batch that was optimizer step `step`."""
        # Only the first batch shows on which devices the losses are.
        if not self._devices:
            self._devices = self._arrange(losses)
        for device in self._devices:
            device.add(losses, self.skipping)
        self._steps.append(step)
        self._count += 1
        if self.skipping:
            self._forget()  # nothing will be looked for

    @property
    def due(self) -> bool:
        """Whether it is time for a look."""
        return len(self._steps) >= self.EVERY

    def look(self) -> BadLoss | None:
        """Return the first bad batch since the last look, if any; waits for the devices."""
        # One number per device is copied in the usual case; the losses themselves only if it is bad.
        flagged = [device for device in self._devices if not bool(torch.isfinite(device.sums).all())]
        bad = min((found for device in flagged if (found := device.first_bad())), default=None)
        steps = self._steps
        self._forget()
        if bad is None:
            return None
        batch, layer, values = bad
        name = list(self.names)[layer]
        return BadLoss(steps[batch], name, dict(zip(self.names[name], values, strict=True)))

    def means(self) -> MeanLosses:
        """Return the means; NaN where there was no batch, or all were left out. Waits for the devices.

        Only of the layers that train.
        """
        self._read()
        return {
            layer: {name: total / count if count else math.nan for name, total in sums.items()}
            for layer, sums in islice(self._sums.items(), self.layers)
            for count in [self._count - self._skipped[layer]]
        }

    def skipped(self) -> dict[str, int]:
        """Return how many batches were left out, for the layers with any."""
        self._read()
        return {layer: count for layer, count in self._skipped.items() if count}

    def state(self) -> dict[str, Any]:
        """Return everything so far as plain numbers, for a checkpoint. Waits for the devices."""
        self._read()
        sums = {layer: dict(values) for layer, values in self._sums.items()}
        return {"sums": sums, "skipped": dict(self._skipped), "count": self._count}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.clear()
        self._sums = {
            layer: {name: float(state["sums"][layer][name]) for name in losses} for layer, losses in self.names.items()
        }
        self._skipped = {layer: int(state["skipped"][layer]) for layer in self.names}
        self._count = int(state["count"])

    def _arrange(self, losses: BatchLosses) -> list[_Device]:
        """Sort the losses by device, with the sums so far."""
        where: dict[torch.device, list[int]] = {}
        for number, (values, names) in enumerate(zip(losses, islice(self.names.values(), self.layers), strict=True)):
            where.setdefault(values[names[0]].device, []).append(number)
        return [_Device(self, device, numbers) for device, numbers in where.items()]

    def _read(self) -> None:
        for device in self._devices:
            device.read(self._sums, self._skipped)

    def _forget(self) -> None:
        self._steps = []
        for device in self._devices:
            device.recent = []


class _Device:
    """The losses that lie on one device: sums (float64, one per loss), and the batches since the last look."""

    def __init__(self, epoch: EpochLosses, device: torch.device, numbers: list[int]) -> None:
        layers = list(epoch.names)
        self.numbers = numbers
        self.layers = [layers[number] for number in numbers]
        self.names = [epoch.names[layer] for layer in self.layers]
        self._keys = [(number, name) for number, names in zip(numbers, self.names, strict=True) for name in names]
        self._sizes = [len(names) for names in self.names]
        owners = [owner for owner, size in enumerate(self._sizes) for _ in range(size)]
        self._owners = torch.tensor(owners, device=device)
        sums = [
            epoch._sums[layer][name] for layer, names in zip(self.layers, self.names, strict=True) for name in names
        ]
        self.sums = torch.tensor(sums, dtype=torch.float64, device=device)
        skipped = [epoch._skipped[layer] for layer in self.layers]
        self.skipped = torch.tensor(skipped, dtype=torch.int64, device=device)
        self.recent: list[Tensor] = []

    def add(self, losses: BatchLosses, skipping: bool) -> None:
        values = torch.stack([losses[number][name] for number, name in self._keys])
        if skipping:
            # A layer steps on all of its losses or on none, so one bad loss leaves out the others too.
            fine = torch.stack([part.all() for part in torch.split(torch.isfinite(values), self._sizes)])
            self.skipped += ~fine
            values = torch.where(fine[self._owners], values, 0.0)
        self.sums += values
        self.recent.append(values)

    def first_bad(self) -> tuple[int, int, list[float]] | None:
        """Return (batch, number of the layer, its losses) of the first that is not finite; one transfer."""
        if not self.recent:
            return None
        values = torch.stack(self.recent).cpu()
        bad = [
            (batch, number, part[batch].tolist())
            for number, part in zip(self.numbers, torch.split(values, self._sizes, 1), strict=True)
            for batch in (~torch.isfinite(part)).any(1).nonzero().flatten().tolist()[:1]
        ]
        return min(bad, default=None)

    def read(self, sums: MeanLosses, skipped: dict[str, int]) -> None:
        """Copy the sums and the counts to the host; one transfer each."""
        numbers = iter(self.sums.tolist())
        for layer, names, count in zip(self.layers, self.names, self.skipped.tolist(), strict=True):
            sums[layer] = {name: next(numbers) for name in names}
            skipped[layer] = count


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """Return the first layer of a snapshot's state, by name, with a number that is not finite, if there is one."""
    for layer, tree in state.items():
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor) and not bool(torch.isfinite(leaf).all()):
                return layer
    return None
