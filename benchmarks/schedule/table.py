"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

from typing import Any

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    lines = [
        "| stages of 10 ms (mean) | ceiling | continuous | efficiency | al-fm |".replace(
            "10", f"{results['milliseconds']:g}"
        ),
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {case['stages']}, {case['balance']} | {case['ceiling']:.2f}x | {case['speedup']['continuous']:.2f}x "
        f"| {100 * case['efficiency']:.1f} % | {case['speedup']['al-fm']:.2f}x |"
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
