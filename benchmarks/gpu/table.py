"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.page import origin


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as a Markdown table: medians of the repetitions, of peak memory the least."""
    lines = [
        "| model | way | samples/s | over BP, eager | launch-bound | held by autograd, MiB | peak memory, MiB | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    speeds: dict[tuple[str, str], float] = {}
    for model, way in dict.fromkeys((run["model"], run["way"]) for run in results["runs"]):
        runs = [run for run in results["runs"] if (run["model"], run["way"]) == (model, way)]
        good = [run for run in runs if "failed" not in run]
        if not good:
            lines.append(f"| {model} | {way} | failed: {runs[0]['failed'].splitlines()[0]} | | | | | |")
            continue
        speeds[model, way] = speed = median(run["samples_per_s"] for run in good)
        base = speeds.get((model, "BP, eager"))
        held = [run["held_mib"] for run in good if run["held_mib"] is not None]
        # The least: what an earlier measurement left in the process counts in later ones.
        peak = [run["peak_mib"] for run in good if run["peak_mib"] is not None]
        without = max(len(run["no_graph"]) for run in good)
        lines.append(
            f"| {model} | {way} | {speed:,.0f} | {f'{speed / base:.2f}x' if base else ''} "
            f"| {100 * median(run['launch_bound'] for run in good):.0f} % "
            f"| {f'{median(held):,.0f}' if held else ''} | {f'{min(peak):,.0f}' if peak else ''} "
            f"| {f'{without} without a graph' if without else ''} |"
        )
    count = {
        sum((run["model"], run["way"]) == (one["model"], one["way"]) for run in results["runs"])
        for one in results["runs"]
    }
    n = " or ".join(map(str, sorted(count)))
    return "\n".join(
        [*lines, "", f"n = {n} interleaved repetitions of {results['settings']['steps']} steps. {origin(results)}"]
    )


def earlier(results: dict[str, Any]) -> str:
    """Return the table of a file from before BP was measured beside AL: AL's ways alone."""
    lines = ["| model | way | samples/s | launch-bound | peak memory |", "|---|---|---|---|---|"]
    for model, way in dict.fromkeys((run["model"], run["way"]) for run in results["runs"]):
        good = [run for run in results["runs"] if (run["model"], run["way"]) == (model, way)]
        lines.append(
            f"| {model} | {way} | {median(run['samples_per_s'] for run in good):,.0f} "
            f"| {100 * median(run['launch_bound'] for run in good):.0f} % "
            f"| {min(run['peak_memory_mb'] for run in good):,.0f} MB |"
        )
    return "\n".join(lines)
