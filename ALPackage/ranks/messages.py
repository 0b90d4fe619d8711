"""What passes through the layers, as messages between the ranks, and back.

a batch      number, x, y, learning rate, rows, layers; what the layers so far have left goes to rank 0 (`result`)
a snapshot   its number; each stage's part of it goes to rank 0
a marker     what it says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..layer import LearningRate, LocalLayer
from ..nested import to_device
from ..rows import Share, join_rows, share_of
from ..stage.batch import Batch, InPlaceGuard, LocalLosses, Marker, PredictBatch, TrainBatch
from ..stage.board import Item
from ..stage.snapshot import Snapshot
from .link import Kind, Message

#: How numbers may be sent, with about what that leaves of their bytes: as they are; coded without loss (`lossless`); or
#: float32 rounded to half of it, which is not exact.
WIRES = {"fp32": 1.0, "compressed": 0.8, "bf16": 0.5}


def as_message(item: Item, wire: str = "fp32", inputs: Any = None, share: Share | None = None) -> Message:
    """Return what the next rank gets for an item.

    Args:
        item: What has passed this rank's layers.
        wire: One of `WIRES`.
        inputs: Of a batch, what the next rank reads of it.
        share: Which rows that is, where there are replicas.
    """
    if item is None:
        return Message(Kind.END)
    if isinstance(item, Marker):
        return Message(Kind(item.kind), content=item.content)
    if isinstance(item, Snapshot):
        return Message(Kind.SNAPSHOT, item.number or 0)
    sent = _rounded(inputs) if wire == "bf16" else (inputs, [])
    rows = None if share is None else torch.tensor(share)
    if isinstance(item, TrainBatch):
        return Message(Kind.TRAIN, item.number, (sent, _written(item.lr), rows, item.layers))
    return Message(Kind.PREDICT, item.number, (sent, None, rows, item.layers))


def rows_for(batch: Batch, place: int, members: int, reader: LocalLayer) -> tuple[Any, Share]:
    """Return what one of the next stage's replicas reads of a batch that has a share, and which rows that is.

    `place`: of the replica, among `members`. `reader`: its first layer. None where they have no rows in common.
    """
    assert batch.share is not None
    own, other = batch.share, share_of(batch.share.total, place, members)
    start = max(own.start, other.start)
    share = Share(start, max(start, min(own.stop, other.stop)), own.total)
    if not share.size:
        return None, share
    if (share.start, share.stop) == (own.start, own.stop):
        return batch.inputs, share
    x, y = batch.inputs if isinstance(batch, TrainBatch) else (batch.inputs, None)
    pair = reader.split(x, y, share.start - own.start, share.stop - own.start)
    return pair if isinstance(batch, TrainBatch) else pair[0], share


def as_item(messages: Sequence[Message], before: str, reader: LocalLayer, place: int = 0, members: int = 1) -> Item:
    """Return the item that a message stands for; where several ranks have sent rows of a batch, the whole share.

    Args:
        messages: What the ranks before this one have sent of it.
        before: The layer that has handed it on.
        reader: The layer that reads it.
        place, members: This rank's place among the replicas of its stage.
    """
    message = messages[0]
    if message.kind == Kind.END:
        return None
    if message.kind == Kind.SNAPSHOT:
        if place:  # the first replica's state is that of all
            return Marker(Kind.SNAPSHOT)
        snapshot = Snapshot()
        snapshot.number = message.number
        return snapshot
    if message.kind not in (Kind.TRAIN, Kind.PREDICT):
        raise RuntimeError(f"got {message.kind.name} in the middle of a run")
    _, rate, rows, layers = message.content
    inputs = [_restored(*one.content[0]) for one in messages]
    training = message.kind == Kind.TRAIN
    # A rank without rows of the batch sends None.
    parts = [part if training else (part, None) for part in inputs if part is not None] or [(None, None)]
    x, y = parts[0] if len(parts) == 1 else reader.join(parts)
    batch: Batch = TrainBatch(message.number, x, y, _read(rate)) if training else PredictBatch(message.number, x)
    if rows is not None:
        batch.share = share_of(int(rows[2]), place, members)
    batch.guard = InPlaceGuard(before, batch.inputs)
    batch.layers = layers
    return batch


def result(item: Batch | Snapshot) -> Message:
    """Return what rank 0 gets of an item: what this rank's layers have left."""
    if isinstance(item, Snapshot):
        return Message(Kind.SNAPSHOT, item.number or 0, item.state)
    return Message(Kind.TRAIN if isinstance(item, TrainBatch) else Kind.PREDICT, item.number, item.left)


def together(parts: Sequence[Any], total: int, layers: int, *, predicted: bool) -> list[Any]:
    """Return what a stage's `layers` have left of a batch, from what its replicas have left of their rows.

    Losses are means over the rows; what `readout` returned is joined.
    """
    if len(parts) == 1:
        return list(parts[0])
    shares = [share_of(total, place, len(parts)) for place in range(len(parts))]
    # What comes from other ranks is in the host's memory.
    here = to_device(list(parts), torch.device("cpu"))
    having = [(share, part) for share, part in zip(shares, here, strict=True) if share.size]
    if predicted:
        return [join_rows([part[index] for _, part in having]) for index in range(layers)]
    means: LocalLosses = []
    for index in range(layers):
        names = having[0][1][index]
        means.append(
            {name: torch.stack([share.weight * part[index][name] for share, part in having]).sum() for name in names}
        )
    return means


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
