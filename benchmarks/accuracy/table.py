"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from training.config.schema import Method

from .choice import best, chosen, finals
from .grid import Cell, Grid, search_runs

__all__ = [
    "about",
    "by_depth",
    "choices",
    "markdown",
    "read",
    "searched",
    "spread",
    "summary",
    "table",
    "time_to",
    "trials",
]

#: The share of BP's accuracy that the time is measured to.
SHARE = 0.95
NONE = "–"

Records = list[dict[str, Any]]
Finals = dict[tuple[str, Method], Records]


def markdown(results: dict[str, Any]) -> str:
    """Return the accuracies, the times and sizes, and what was chosen. What is not run yet is a dash."""
    grid, runs = read(results)
    found = finals(grid, runs)
    parts = [
        about(grid, found),
        _accuracies(grid, found),
        "Test accuracy in %, mean ± sample standard deviation over the seeds, each at the epoch chosen on validation; "
        "AL by depth: the mean with the first layers alone, from one to all.",
        _costs(grid, found),
        f"Times in s, mean over the seeds; {100 * SHARE:g} % of BP's: until the test accuracy is {SHARE:g} times the "
        "mean of BP's at its last epoch.",
        choices(grid, runs),
        _first_epochs(grid, found),
    ]
    return "\n\n".join(part for part in parts if part)


def summary(results: dict[str, Any]) -> str:
    """Return the accuracies of both methods and their difference alone."""
    grid, runs = read(results)
    found = finals(grid, runs)
    rows = [[cell.name, *_compared(_own(found, cell, "bp"), _own(found, cell, "al"))] for cell in grid.cells]
    return table(["test accuracy, %", "BP", "AL", "AL − BP"], rows)


def searched(results: dict[str, Any]) -> str:
    """Return what the chosen trials came to on the search seed, one run each, and then every trial."""
    grid, runs = read(results)
    found = {key: [runs[run.command]] for key, run in chosen(grid, runs).items()}
    return "\n\n".join(part for part in (about(grid, found), _accuracies(grid, found), trials(results)) if part)


def trials(results: dict[str, Any]) -> str:
    """Return every finished trial of the search, the chosen ones in bold."""
    grid, runs = read(results)
    choice = chosen(grid, runs)
    rows = []
    for run in search_runs(grid):
        if run.command in runs:
            row = best(runs[run.command])
            mark = "**" if choice.get((run.cell.name, run.method)) == run else ""
            val = f"{mark}{row['val_acc']:.2f}{mark}"
            rows.append([run.cell.name, run.method.upper(), _settings(run.trial), val, f"{row['test_acc']:.2f}"])
    return table(["", "method", "trial", "validation, %", "test there, %"], rows)


def time_to(record: dict[str, Any], accuracy: float) -> float | None:
    """Return the training time at the first epoch whose test accuracy is at least `accuracy`; None if there is none."""
    return next((row["train_time"] for row in record["rows"] if row["test_acc"] >= accuracy), None)


def read(results: dict[str, Any]) -> tuple[Grid, dict[str, dict[str, Any]]]:
    """Return the grid, and the runs by their command."""
    return Grid.model_validate(results["grid"]), {record["command"]: record for record in results["runs"]}


def about(grid: Grid, found: Finals) -> str:
    """Return what was run, on what, and with which versions."""
    records = [record for records in found.values() for record in records]
    if not records:
        return grid.about
    origins = [record["provenance"] for record in records]
    devices = {name for origin in origins for name in origin["device_names"].values() if name}
    versions = {f"Python {origin['versions']['python']}, torch {origin['versions']['torch']}" for origin in origins}
    commits = {origin["git_commit"][:7] for origin in origins if origin.get("git_commit")}
    cores = {str(origin["cores"]) for origin in origins}
    return (
        f"{grid.about} {'; '.join(sorted(devices))}, cores per run: {', '.join(sorted(cores))}; "
        f"{'; '.join(sorted(versions))}; commits {', '.join(sorted(commits)) or 'unknown'}. {len(records)} runs, the "
        f"longest took {max(record['wall_s'] for record in records):.0f} s, loading and evaluations included."
    )


def _accuracies(grid: Grid, found: Finals) -> str:
    rows = []
    for cell in grid.cells:
        bp, al = _own(found, cell, "bp"), _own(found, cell, "al")
        rows.append([cell.name, *_compared(bp, al), " / ".join(by_depth(al)) or NONE, f"{len(bp)}, {len(al)}"])
    return table(["", "BP", "AL", "AL − BP", "AL by depth", "seeds (BP, AL)"], rows)


def _costs(grid: Grid, found: Finals) -> str:
    rows = []
    for cell in grid.cells:
        bp = _own(found, cell, "bp")
        goal = SHARE * fmean(record["rows"][-1]["test_acc"] for record in bp) if bp else None
        for method in grid.methods:
            if records := _own(found, cell, method):
                rows.append([cell.name, method.upper(), *_cost(records, goal)])
    heads = ["epochs", "chosen epoch", "training time", f"to {100 * SHARE:g} % of BP's", "parameters trained"]
    return table(["", "method", *heads, "in inference"], rows)


def _cost(records: Records, goal: float | None) -> list[str]:
    reached = NONE
    if goal is not None:
        times = [time_to(record, goal) for record in records]
        there = [time for time in times if time is not None]
        missed = len(times) - len(there)
        reached = f"{fmean(there):.1f}" if not missed else f"not reached in {missed} of {len(times)}"
    return [
        _distinct(len(record["rows"]) for record in records),
        f"{fmean(best(record)['epoch'] for record in records):.1f}",
        f"{fmean(record['rows'][-1]['train_time'] for record in records):.1f}",
        reached,
        _distinct(record["parameters_training"] for record in records),
        _distinct(record["parameters_inference"] for record in records),
    ]


def choices(grid: Grid, runs: dict[str, dict[str, Any]]) -> str:
    """Return what was chosen for every cell and method, as a table."""
    rows = []
    for (name, method), run in chosen(grid, runs).items():
        row = best(runs[run.command])
        count = str(len(run.cell.search[method]))
        rows.append([name, method.upper(), count, _settings(run.trial), f"{row['val_acc']:.2f}"])
    return table(["", "method", "trials", "chosen on validation", "validation there, %"], rows)


def _first_epochs(grid: Grid, found: Finals) -> str:
    rows = []
    for cell in grid.cells:
        if al := _own(found, cell, "al"):
            least = min(record["rows"][0]["test_acc"] for record in al)
            rows.append([cell.name, f"{least:.2f}", f"{100 / al[0]['classes']:.2f}"])
    return table(["test accuracy, %", "AL after its first epoch, the lowest of the seeds", "chance"], rows)


def _own(found: Finals, cell: Cell, method: Method) -> Records:
    return found.get((cell.name, method), [])


def _compared(bp: Records, al: Records) -> list[str]:
    """Return BP's accuracy, AL's, and the difference of the means."""
    accuracies = [[best(record)["test_acc"] for record in records] for records in (bp, al)]
    difference = f"{fmean(accuracies[1]) - fmean(accuracies[0]):+.2f}" if all(accuracies) else NONE
    return [*map(spread, accuracies), difference.replace("-", "−")]


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation; a dash for nothing."""
    if not values:
        return NONE
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def by_depth(al: Records) -> list[str]:
    """Return the mean test accuracy with the first layers alone, from one to all."""
    rows = [best(record) for record in al]
    depths = [name for name in rows[0] if name.startswith("test_acc_depth_")] if rows else []
    return [f"{fmean(row[name] for row in rows):.2f}" for name in depths]


def _distinct(numbers: Iterable[int]) -> str:
    return " / ".join(f"{number:,}" for number in dict.fromkeys(numbers))


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={json.dumps(value)}`" for key, value in settings.items()) or "as the cell says"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
