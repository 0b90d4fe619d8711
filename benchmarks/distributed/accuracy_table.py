"""The table of the short trainings, from its JSON."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.page import origin

METHODS = {"bp": "BP", "al": "AL", "2bw": "BP with a delay of one step (2BW)"}


def accuracy(results: dict[str, Any]) -> str:
    """Return the validation accuracies of every method, and their differences from BP's."""
    settings = results["settings"]
    lines = [
        f"| validation accuracy after {settings['epochs']} epochs, %: mean of {settings['seeds']} seeds (range) "
        f"| {' | '.join(METHODS.values())} |",
        "|---|" + "---|" * len(METHODS),
    ]
    for case in dict.fromkeys(run["case"] for run in results["runs"]):
        cells = [_cell(results, case, method) for method in METHODS]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", origin(results)])


def _cell(results: dict[str, Any], case: str, method: str) -> str:
    runs = [run for run in results["runs"] if (run["case"], run["method"]) == (case, method)]
    found = [run["val_acc"] for run in runs if "failed" not in run]
    if not found:
        return f"cannot run: {runs[0]['failed'].strip().splitlines()[-1]}" if runs else "not measured"
    return f"{mean(found):.1f} ({min(found):.1f} - {max(found):.1f})"
