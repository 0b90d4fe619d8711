"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

__all__ = ["markdown", "off"]

#: How far the expectation may be off, in percent.
TARGET = 20.0


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        f"| model | method | expected, s per epoch | first epoch, s | second epoch, s | off, % (target {TARGET:.0f}) |",
        "|---|---|---|---|---|---|",
    ]
    for name, model in results["models"].items():
        for method in ("al", "bp"):
            runs = model["runs"]
            first, second = (median(run["epochs"][method][epoch] for run in runs) for epoch in (0, 1))
            errors = [off(run, method) for run in runs]
            spread = f" ({min(errors):+.0f} .. {max(errors):+.0f})" if len(errors) > 1 else ""
            lines.append(
                f"| {name} | {method.upper()} | {median(run['expected'][method] for run in runs):.2f} | {first:.2f} "
                f"| {second:.2f} | {median(errors):+.0f}{spread} |"
            )
    count = len(next(iter(results["models"].values()))["runs"])
    lines += ["", f"n = {count}, each a plan and the training that followed it; medians, in brackets the extremes."]
    return "\n".join(lines)


def off(run: dict[str, Any], method: str) -> float:
    """Return by how many percent of the mean epoch the expectation was above it."""
    took = sum(run["epochs"][method]) / len(run["epochs"][method])
    return 100.0 * (run["expected"][method] / took - 1.0)
