"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    lines = [
        f"| stages of {results['milliseconds']:g} ms (mean) | speed-up, estimated | continuous | al-fm "
        "| utilization of the busiest stage |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {case['stages']}, {case['balance']} | {case['ceiling']:.2f}x | {case['speedup']['continuous']:.2f}x "
        f"| {case['speedup']['al-fm']:.2f}x | {100 * utilization(case):.1f} % |"
        for case in results["efficiency"]
    ]
    runs = len(results["efficiency"][0]["seconds_per_batch"])
    lines += ["", f"{results['batches']} batches; n = {runs} interleaved repetition{'s' * (runs > 1)}."]
    lines += ["", "| empty stages | the whole engine, per batch and stage | a bare queue |", "|---|---|---|"]
    lines += [
        f"| {case['stages']} | {case['engine_us']:.0f} us | {case['bare_queue_us']:.0f} us |"
        for case in results["overhead"]
    ]
    return "\n".join(lines)


def utilization(case: dict[str, Any]) -> float:
    """Return the share of a continuous run that the busiest stage's own work takes, fill and drain included.

    A sleep never returns early, so this is at most 1.
    """
    return max(case["times"]) / median(run["continuous"] for run in case["seconds_per_batch"])
