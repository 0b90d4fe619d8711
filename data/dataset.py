"""What every data set looks like once it is loaded, and how train is divided into train and validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ALPackage.randomness import generator

from .errors import DataError

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Split:
    """The rows `index` of a storage that several splits may share, and that may be memory-mapped.

    `inputs`: a tensor, or a tuple of tensors, whose first dimension is the storage row. Vision: uint8
    (rows, C, H, W). Text: (token ids int32 (rows, max_len) padded with 0, lengths int64 (rows,), each >= 1).
    `labels`: int64 (rows,). `index`: int64 (N,), the rows of this split.
    """

    inputs: Inputs
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return int(self.index.numel())

    def rows(self, positions: Tensor) -> tuple[Inputs, Tensor]:
        """Return the inputs and labels at `positions` (int64, in [0, N)) of this split."""
        rows = self.index[positions]
        inputs = tuple(part[rows] for part in self.inputs) if isinstance(self.inputs, tuple) else self.inputs[rows]
        return inputs, self.labels[rows]


@dataclass(frozen=True)
class Dataset:
    """A data set, divided. `probe` is a fixed part of train, as large as val, on which train_acc is measured.

    `vocabulary` (text only) lists the token of each id. `stored_size` (vision only): height and width of the images
    before they were brought to the size that was asked for. `notes` are facts that the user should know, one line each.
    Test is never used to choose anything.
    """

    name: str
    classes: list[str]
    train: Split
    val: Split
    test: Split
    probe: Split
    vocabulary: list[str] = field(default_factory=list)
    stored_size: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


def digest(data: Dataset, *more: Tensor) -> str:
    """Return a checksum of everything that a run trains and measures on, and of `more`: samples, labels, division."""
    total, seen = hashlib.blake2b(digest_size=8), set()
    for split in (data.train, data.val, data.test):
        inputs = split.inputs if isinstance(split.inputs, tuple) else (split.inputs,)
        for part in (*inputs, split.labels, split.index, *more):
            if (storage := (part.data_ptr(), part.shape)) not in seen:  # splits share their storage
                seen.add(storage)
                total.update(f"{part.dtype} {tuple(part.shape)}".encode())
                total.update(part.contiguous().numpy().data)
    return total.hexdigest()


def divide(
    rows: int, *, val_fraction: float, seed: int, limit: int | None = None, name: str = "data set"
) -> tuple[Tensor, Tensor]:
    """Return (train, val): disjoint, shuffled rows of a training set of `rows` samples, int64.

    Both depend on the arguments alone, so every method and every turn gets the same division. With a `limit`, train
    has at most `limit` samples, and val shrinks in proportion. Raises DataError, which begins with `name`, for too few
    rows.
    """
    used = rows if limit is None else min(rows, limit)
    n_val = max(1, round(val_fraction * used))
    if rows - n_val < 1:
        raise DataError(
            f"{name}: {rows} training samples are too few to set {n_val} aside for validation; add samples, or lower "
            "val_fraction"
        )
    order = torch.randperm(rows, generator=generator("divide", seed))
    return order[n_val:][:limit], order[:n_val]


def make_dataset(
    name: str,
    classes: list[str],
    train: tuple[Inputs, Tensor],
    test: tuple[Inputs, Tensor],
    *,
    val_fraction: float,
    seed: int,
    limit_train: int | None = None,
    vocabulary: list[str] | None = None,
    stored_size: tuple[int, int] | None = None,
    notes: list[str] | None = None,
) -> Dataset:
    """Build a `Dataset` from the (inputs, labels) of train and test; val and probe are taken from train."""
    train_rows, val_rows = divide(len(train[1]), val_fraction=val_fraction, seed=seed, limit=limit_train, name=name)
    notes = list(notes or [])
    for labels, what in ((train[1][train_rows], "training"), (test[1], "test")):
        seen = labels.bincount(minlength=len(classes))
        absent = [classes[label] for label in (seen == 0).nonzero().flatten().tolist()]
        if absent:
            shown = ", ".join(absent[:5]) + (", .." if len(absent) > 5 else "")
            notes.append(f"{name}: {len(absent)} of {len(classes)} classes have no {what} sample: {shown}")
    return Dataset(
        name=name,
        classes=classes,
        train=Split(*train, train_rows),
        val=Split(*train, val_rows),
        test=Split(*test, torch.arange(len(test[1]))),
        probe=Split(*train, train_rows[: len(val_rows)]),
        vocabulary=vocabulary or [],
        stored_size=stored_size,
        notes=notes,
    )
