"""The names of columns and methods in result files. Losses take theirs from the layers that compute them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

COMMON = ("turn", "epoch", "train_acc", "val_acc", "test_acc", "train_time")
DEPTH = "test_acc_depth"
#: The columns of a method whose losses belong to layers; the number is that of the layer.
NUMBERED = re.compile(r"(?P<kind>.+)_(?P<number>[1-9]\d*)")

#: The names of the losses by layer, in order; a network with one loss is the layer "".
LossNames = Mapping[str, Sequence[str]]


def columns(loss_names: LossNames) -> list[str]:
    """Return the columns of a method's CSV, in order."""
    losses = [column for column, _, _ in loss_columns(loss_names)]
    depths = [f"{DEPTH}_{number}" for number in range(1, depth_count(loss_names) + 1)]
    return [*COMMON, *losses, *depths]


def loss_columns(loss_names: LossNames) -> Iterator[tuple[str, str, str]]:
    """Yield (column, layer, loss) for every loss: all layers of the first loss, then of the second, and so on."""
    for loss in dict.fromkeys(loss for losses in loss_names.values() for loss in losses):
        for number, (layer, losses) in enumerate(loss_names.items(), start=1):
            if loss in losses:
                yield (f"{loss_kind(loss)}_{number}" if layer else loss_kind(loss)), layer, loss


def loss_kind(loss: str) -> str:
    """Return what the columns of a loss begin with: "assoc_loss" for "assoc", and "loss" for "loss"."""
    return loss if loss == "loss" else f"{loss}_loss"


def loss_of(kind: str) -> str:
    """Return the loss whose columns begin with `kind`."""
    return kind.removesuffix("_loss") if kind != "loss" else kind


def depth_count(loss_names: LossNames) -> int:
    """Return at how many depths inference is measured: at every layer with losses of its own."""
    return sum(layer != "" for layer in loss_names)
