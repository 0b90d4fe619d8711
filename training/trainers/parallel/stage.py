"""The layers of a pipeline's stage as one module, and which stages a rank has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.errors import LayerError
from ALPackage.nested import to_device
from ALPackage.randomness import dropouts, seed_dropouts, share_rows
from models import BPModel


class Stage(nn.Module):
    """Neighboring BP layers, from tensor to tensor; what comes in and goes out is on the CPU.

    The lengths of texts do not travel with the features: every rank is told them. Micro-batches come in order, and the
    dropouts draw for each what they would draw for its rows in the whole batch.
    """

    def __init__(self, layers: Mapping[str, nn.Module], devices: Mapping[str, torch.device]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self._devices = devices
        self._inside = {name: dropouts(layer) for name, layer in layers.items()}
        self._coming = 0
        self._lengths: Tensor | None = None
        self._rows, self._total, self._seed, self._step = 1, 1, 0, 0

    def begin(self, lengths: Tensor | None, rows: int, total: int, seed: int, step: int) -> None:
        """Get ready for a batch of `total` rows, of which every micro-batch has `rows`."""
        self._coming = 0
        self._lengths, self._rows, self._total, self._seed, self._step = lengths, rows, total, seed, step

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of the next micro-batch."""
        start = self._coming * self._rows
        stop = start + self._rows
        self._coming += 1
        for name, layer in self.layers.items():
            seed_dropouts(layer, self._inside[name], self._seed, name, self._step)
            share_rows(self._inside[name], (start, stop, self._total))
            inputs: Any = x if self._lengths is None else (x, self._lengths[start:stop])
            x = features(layer(to_device(inputs, self._devices[name])))
        return x.to("cpu").contiguous()


@torch.no_grad()
def shapes_between(model: BPModel, x: Any, positions: int | None) -> list[tuple[str, list[int]]]:
    """Return what every layer hands on, as the type and the shape without the rows.

    `x`: the input of a batch; `positions`: the length that its texts are padded to. The model's mode is left as it is.
    Raises LayerError for a layer that hands on something else than features, or features and their lengths.
    """
    mode = model.training
    model.eval()
    shapes: list[tuple[str, list[int]]] = []
    inputs, lengths = split_input(x)
    inputs = padded(inputs[:2], positions)
    for (name, layer), device in zip(model.layers.items(), model.devices, strict=True):
        given: Any = inputs if lengths is None else (inputs, lengths[:2])
        out = layer(to_device(given, device))
        plain = isinstance(out, Tensor) or (lengths is not None and isinstance(out, tuple) and len(out) == 2)
        if not plain or not features(out).is_floating_point() or len(features(out)) != len(inputs):
            raise LayerError(
                f"layer {name!r} hands on something that a pipeline cannot: expected a tensor whose rows are those of "
                "the batch, and for texts their lengths beside it; give --bp-parallel ddp"
            )
        inputs = features(out)
        shapes.append((str(inputs.dtype).removeprefix("torch."), list(inputs.shape[1:])))
    model.train(mode)
    return shapes


def padded(x: Tensor, positions: int | None) -> Tensor:
    """Return texts (B, T) with padding up to so many positions; None: `x` as it is."""
    return x if positions is None else F.pad(x, (0, positions - x.shape[1]))


def features(handed_on: Any) -> Tensor:
    """Return what a layer hands on without the lengths of texts."""
    found: Tensor = handed_on[0] if isinstance(handed_on, tuple) else handed_on
    return found


def split_input(x: Any) -> tuple[Tensor, Tensor | None]:
    """Return the input of a batch as (tensor, lengths); images have no lengths."""
    return (x[0], x[1]) if isinstance(x, tuple) else (x, None)
