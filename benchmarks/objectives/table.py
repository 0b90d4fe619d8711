"""The tables of this benchmark, from its two JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

from benchmarks.accuracy.choice import best, finals
from benchmarks.accuracy.table import about, by_depth, choices, read, spread, table
from benchmarks.page import origin
from models import registry

MODELS = {"lstm": "LSTM", "transformer": "Transformer", "vgg": "VGG", "resnet": "ResNet"}
METHODS = ("bp", "al", "ce", "scl", "predsim", "deinfo", "infopro")


def markdown(results: dict[str, Any]) -> str:
    """Return the accuracies, those by depth, and what was chosen. What has not been run yet is a dash."""
    grid, runs = read(results)
    found = finals(grid, runs)
    depths = [
        [cell.name, title(method), " / ".join(by_depth(found[cell.name, method]))]
        for cell in grid.cells
        for method in grid.methods
        if method != "bp" and (cell.name, method) in found
    ]
    parts = [
        about(grid, found),
        summary(results),
        "Test accuracy in %, mean ± sample standard deviation over the seeds, each at the epoch chosen on validation; "
        "the best local objective of a row in bold.",
        table(["", "objective", "test accuracy by depth, %"], depths),
        choices(grid, runs),
    ]
    return "\n\n".join(part for part in parts if part)


def summary(results: dict[str, Any]) -> str:
    """Return the accuracy of every method on every cell of which anything has been run; a dash for what has not."""
    grid, runs = read(results)
    found = finals(grid, runs)
    rows = []
    for cell in grid.cells:
        own = {
            method: [best(record)["test_acc"] for record in found[cell.name, method]]
            for method in grid.methods
            if (cell.name, method) in found
        }
        if not own:
            continue
        local = {method: fmean(accuracies) for method, accuracies in own.items() if method != "bp"}
        first = max(local, key=lambda method: local[method]) if local else None
        cells = [spread(own.get(method, [])) for method in grid.methods]
        cells = [f"**{one}**" if method == first else one for method, one in zip(grid.methods, cells, strict=True)]
        rows.append([cell.name, *cells])
    return table(["test accuracy, %", *map(title, grid.methods)], rows)


def costs(results: dict[str, Any]) -> str:
    """Return what a step costs: operations, what autograd holds at most, and the time with two cores."""
    titles = {
        "flops": ("floating-point operations of a step, GFLOP (over BP's)", 1e-9),
        "held_mib": ("held by autograd at the peak, one core, MiB (over BP's)", 1.0),
        "step_s": ("time of a step with two cores, ms (over BP's)", 1e3),
    }
    parts = []
    for key, (head, scale) in titles.items():
        rows = []
        for model, name in MODELS.items():
            figures = {method: _figure(results, model, method, key) for method in METHODS}
            rows.append([name, *(_over(figures, method, scale) for method in METHODS)])
        parts.append(table([head, *map(title, METHODS)], rows))
    settings = results["settings"]
    how = (
        f"Operations and memory are the same in every run; times are medians of {settings['repeats']} interleaved "
        f"repetitions of {settings['batches']} batches: BP with two threads, the others with two workers. "
    )
    return "\n\n".join([*parts, how + origin(results)])


def title(method: str) -> str:
    """Return how a table calls a method."""
    return "BP" if method == "bp" else registry.objective(method).title


def _over(figures: Mapping[str, float | None], method: str, scale: float) -> str:
    own, of_bp = figures[method], figures["bp"]
    if own is None:
        return "–"
    said = f"{own * scale:,.{0 if own * scale >= 10 else 2}f}"
    return said if method == "bp" or of_bp is None else f"{said} ({own / of_bp:.2f})"


def _figure(results: dict[str, Any], model: str, method: str, key: str) -> float | None:
    own = [run[key] for run in results["runs"] if (run["model"], run["method"]) == (model, method) and key in run]
    return median(own) if own else None
