"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as a Markdown table, the medians of the repetitions of each, of memory the least."""
    lines = ["| model | way | samples/s | launch-bound | peak memory |", "|---|---|---|---|---|"]
    for model, way in dict.fromkeys((run["model"], run["way"]) for run in results["runs"]):
        runs = [run for run in results["runs"] if (run["model"], run["way"]) == (model, way)]
        good = [run for run in runs if "failed" not in run]
        if not good:
            lines.append(f"| {model} | {way} | failed: {runs[0]['failed'].splitlines()[0]} | | |")
            continue
        memory = [run["peak_memory_mb"] for run in good if run["peak_memory_mb"] is not None]
        lines.append(
            f"| {model} | {way} | {median([run['samples_per_s'] for run in good]):,.0f} "
            f"| {100 * median([run['launch_bound'] for run in good]):.0f} % "
            # The least: what torch.compile keeps of an earlier repetition's models counts in later ones.
            f"| {f'{min(memory):,.0f} MB' if memory else ''} |"
        )
    return "\n".join(lines)
