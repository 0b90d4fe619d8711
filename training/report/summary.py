"""The figures of a method over its turns. The epoch that is reported is chosen on validation; test chooses nothing.

Of a stack that grows, only the epochs with the most layers can be chosen: the others are of smaller networks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .columns import DEPTH
from .run_info import RunInfo


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """The figures of a method, each turn at its chosen epoch."""

    method: str
    turns: int
    chosen_epoch: list[int]
    test_acc: list[float]
    test_acc_mean: float
    test_acc_std: float | None
    """Sample standard deviation over the turns; None for a single turn."""
    final_test_acc: list[float]
    """At the last epoch of each turn."""
    train_time: list[float]
    samples_per_s: float | None
    """Training samples over training time, all turns together; None where no time was measured."""
    parameters_training: int
    parameters_inference: int
    peak_memory_mb: float | None
    """The largest of the turns; None where it was not measured."""


def best_epoch(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row of a turn that is reported: the best on validation, and the earlier one of equals.

    Of a stack that grows, an epoch with more layers counts before any with fewer.
    """
    return max(rows, key=lambda row: (depths(row), row["val_acc"]))  # max keeps the first


def summary(
    method: str, info: RunInfo, rows: Sequence[Mapping[str, Any]], ended: Mapping[int, Mapping[str, Any]]
) -> MethodSummary:
    """Return the figures of the rows of a run, at least one, by epoch and turn; the last turn may be unfinished.

    `ended`: by number, what is known of the turns that have ended.
    """
    turns = [[row for row in rows if row["turn"] == turn] for turn in dict.fromkeys(row["turn"] for row in rows)]
    chosen = [best_epoch(turn) for turn in turns]
    test_acc = [row["test_acc"] for row in chosen]
    train_time = [turn[-1]["train_time"] for turn in turns]
    seconds = sum(train_time)
    peaks = [turn["peak_memory_mb"] for turn in ended.values() if turn["peak_memory_mb"] is not None]
    return MethodSummary(
        method=method,
        turns=len(turns),
        chosen_epoch=[row["epoch"] for row in chosen],
        test_acc=test_acc,
        test_acc_mean=round(statistics.fmean(test_acc), 4),
        test_acc_std=round(statistics.stdev(test_acc), 4) if len(test_acc) > 1 else None,
        final_test_acc=[turn[-1]["test_acc"] for turn in turns],
        train_time=train_time,
        samples_per_s=round(info.train_samples * len(rows) / seconds, 1) if seconds else None,
        parameters_training=info.parameters_training,
        parameters_inference=info.parameters_inference,
        peak_memory_mb=max(peaks, default=None),
    )


def depths(row: Mapping[str, Any]) -> int:
    """Return at how many depths the network of an epoch was measured."""
    return sum(column.startswith(f"{DEPTH}_") and value is not None for column, value in row.items())
