"""What is chosen, and on what: epochs and trials by their accuracy on validation, never on test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.config.schema import Method

from .grid import Grid, Run, final_runs, search_runs

__all__ = ["best", "chosen", "finals"]


def best(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the epoch with the best accuracy on validation, the first of equals."""
    row: dict[str, Any] = max(record["rows"], key=lambda row: row["val_acc"])
    return row


def chosen(grid: Grid, runs: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, Method], Run]:
    """Return the best trial, the first of equals, of each cell's name and method all of whose trials are finished."""
    trials = search_runs(grid)
    found = {}
    for cell in grid.cells:
        for method in grid.methods:
            own = [run for run in trials if run.cell is cell and run.method == method]
            if all(run.command in runs for run in own):
                found[cell.name, method] = max(own, key=lambda run: best(runs[run.command])["val_acc"])
    return found


def finals(grid: Grid, runs: Mapping[str, dict[str, Any]]) -> dict[tuple[str, Method], list[dict[str, Any]]]:
    """Return the finished runs of the chosen trials, by cell's name and method, in the order of the seeds."""
    found: dict[tuple[str, Method], list[dict[str, Any]]] = {}
    for run in final_runs(grid, chosen(grid, runs)):
        if run.command in runs:
            found.setdefault((run.cell.name, run.method), []).append(runs[run.command])
    return found
