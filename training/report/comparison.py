"""The table that compares the methods of a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from ..config.load import method_title
from .summary import MethodSummary

#: Characters of a line.
WIDEST = 120


def comparison_rows(summaries: Sequence[MethodSummary]) -> list[list[str]]:
    """Return a line per figure: its name, and its value for each method."""
    rows: list[tuple[str, Callable[[MethodSummary], str]]] = [
        ("test accuracy (%)", lambda s: spread(s.test_acc)),
        ("epoch chosen on validation", lambda s: _epochs(s.chosen_epoch)),
        ("test accuracy, last epoch (%)", lambda s: spread(s.final_test_acc)),
        ("training time (s per turn)", lambda s: spread(s.train_time)),
        ("samples/s", lambda s: "-" if s.samples_per_s is None else f"{s.samples_per_s:,.0f}"),
        ("parameters in training", lambda s: f"{s.parameters_training:,}"),
        ("parameters in inference", lambda s: f"{s.parameters_inference:,}"),
        ("peak memory (MB)", lambda s: "-" if s.peak_memory_mb is None else f"{s.peak_memory_mb:,.0f}"),
        ("turns", lambda s: str(s.turns)),
    ]
    return [[name, *map(show, summaries)] for name, show in rows]


def comparison_table(summaries: Sequence[MethodSummary]) -> str:
    """Return the figures of the methods side by side, as aligned plain text; of many, in tables below each other."""
    cells = [["", *(method_title(s.method) for s in summaries)], *comparison_rows(summaries)]
    names, *columns = zip(*cells, strict=True)
    width = max(len(cell) for column in columns for cell in column) + 2
    tables = -(-len(columns) // max(1, (WIDEST - max(map(len, names))) // width))
    each = -(-len(columns) // tables)
    parts = [columns[start : start + each] for start in range(0, len(columns), each)]
    return "\n\n".join(_aligned([names, *part]) for part in parts)


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    """Return a table as text; the first column is that of the names, the first line the heading."""
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row, widths[1:], strict=True))])
        for name, *row in zip(*columns, strict=True)
    ]
    return "\n".join([lines[0].rstrip(), "-" * len(lines[1]), *lines[1:]])


def _epochs(chosen: Sequence[int]) -> str:
    if len(chosen) <= 5:
        return ", ".join(map(str, chosen))
    return f"{min(chosen)} to {max(chosen)}" if min(chosen) < max(chosen) else str(chosen[0])


def spread(values: Sequence[float]) -> str:
    """Return the mean and, over several turns, the sample standard deviation."""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
