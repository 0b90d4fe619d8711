"""What passes through the layers, as messages between the ranks, and back.

a batch      its number, x, y and learning rate; what the layers so far have left goes to rank 0 (`result`)
a snapshot   its number; each rank's part of it goes to rank 0
a marker     what it says
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..layer import LearningRate
from ..stage.batch import Batch, InPlaceGuard, Marker, PredictBatch, TrainBatch
from ..stage.board import Item
from ..stage.snapshot import Snapshot
from .link import Kind, Message

#: How floating-point numbers may be sent: as they are, or float32 rounded to half of its bytes, which is not exact.
WIRES = ("fp32", "bf16")


def as_message(item: Item, wire: str = "fp32") -> Message:
    """Return what the next rank gets for an item that has passed this one's layers. `wire`: one of `WIRES`."""
    if item is None:
        return Message(Kind.END)
    if isinstance(item, Marker):
        return Message(Kind(item.kind), content=item.content)
    if isinstance(item, Snapshot):
        return Message(Kind.SNAPSHOT, item.number or 0)
    inputs = _rounded(item.inputs) if wire == "bf16" else (item.inputs, [])
    if isinstance(item, TrainBatch):
        return Message(Kind.TRAIN, item.number, (inputs, _written(item.lr)))
    return Message(Kind.PREDICT, item.number, (inputs, None))


def as_item(message: Message, before: str) -> Item:
    """Return the item that a message stands for. `before`: the layer that has handed it on."""
    if message.kind == Kind.END:
        return None
    if message.kind == Kind.SNAPSHOT:
        snapshot = Snapshot()
        snapshot.number = message.number
        return snapshot
    if message.kind not in (Kind.TRAIN, Kind.PREDICT):
        raise RuntimeError(f"got {message.kind.name} in the middle of a run")
    batch: Batch
    sent, rate = message.content
    inputs = _restored(*sent)
    if message.kind == Kind.TRAIN:
        x, y = inputs
        batch = TrainBatch(message.number, x, y, _read(rate))
    else:
        batch = PredictBatch(message.number, inputs)
    batch.guard = InPlaceGuard(before, batch.inputs)
    return batch


def result(item: Batch | Snapshot) -> Message:
    """Return what rank 0 gets of an item: what this rank's layers have left."""
    if isinstance(item, Snapshot):
        return Message(Kind.SNAPSHOT, item.number or 0, item.state)
    if isinstance(item, TrainBatch):
        return Message(Kind.TRAIN, item.number, item.losses)
    return Message(Kind.PREDICT, item.number, item.results)


def add_result(item: Batch | Snapshot, content: Any) -> None:
    """Add to an item what another rank's layers have left of it."""
    if isinstance(item, Snapshot):
        item.state |= content
    else:
        results = item.losses if isinstance(item, TrainBatch) else item.results
        results += content


def _rounded(tree: Any) -> tuple[Any, list[int]]:
    """Return the tree with its float32 tensors as bfloat16, and which of its leaves these are."""
    leaves, spec = tree_flatten(tree)
    which = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dtype == torch.float32]
    for number in which:
        leaves[number] = leaves[number].to(torch.bfloat16)
    return tree_unflatten(leaves, spec), which


def _restored(tree: Any, which: list[int]) -> Any:
    """Return the tree with these leaves as float32 again."""
    if not which:
        return tree
    leaves, spec = tree_flatten(tree)
    for number in which:
        leaves[number] = leaves[number].to(torch.float32)
    return tree_unflatten(leaves, spec)


def _written(lr: LearningRate | None) -> Any:
    """Write a learning rate so that only tensors change from batch to batch: the description is sent once."""
    if lr is None:
        return None
    if isinstance(lr, Mapping):
        return list(lr), torch.tensor([float(rate) for rate in lr.values()], dtype=torch.float64)
    return torch.tensor(float(lr), dtype=torch.float64)


def _read(written: Any) -> LearningRate | None:
    if written is None:
        return None
    if isinstance(written, tuple):
        return dict(zip(written[0], written[1].tolist(), strict=True))
    rate: float = written.item()
    return rate
