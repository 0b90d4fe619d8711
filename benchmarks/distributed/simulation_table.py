"""The tables of the simulation, from its JSON."""

from __future__ import annotations

from typing import Any

from benchmarks.page import origin
from benchmarks.pipeline.table import TITLES

NAMES = {**TITLES, "al-ranks": "AL"}


def simulation(results: dict[str, Any]) -> str:
    """Return what many devices would do, per speed of the links, and the simulation beside what was measured."""
    rows = results["settings"]["rows"]
    lines: list[str] = []
    for scale in results["scale"]:
        lines += [
            f"| **simulated** samples/s, batches of {rows:,}, links of {8 * scale['bytes_per_s'] / 1e9:.2f} Gbit/s "
            f"({scale['rate']}) | AL | 1F1B | zero bubble | DDP | AL's stages "
            "| 1F1B: stages x replicas, micro-batches |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [f"| {row[0]} devices | {' | '.join(row[1:])} |" for row in scale["rows"]]
        lines.append("")
    lines += ["| | | measured, median | simulated | simulated over measured |", "|---|---|---|---|---|"]
    for check in results["checks"]:
        measured, simulated = check["measured"], check["simulated"]
        figures = f"{measured:.1f} | {simulated:.1f} | {simulated / measured:.2f}"
        lines.append(f"| {check['what']} | {NAMES[check['who']]} | {figures} |")
    return "\n".join([*lines, "", origin({**results, "runs": []})])
