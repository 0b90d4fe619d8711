"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| command | runs | equal to the uninterrupted one | kills | of these while a file was written | processes |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(run["name"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["name"] == name]
        kills = [kill for run in runs for kill in run["kills"] if kill["killed"]]
        files = Counter(kill["hit"].split()[-1] for kill in kills if kill["hit"])
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(files.items()))
        lines.append(
            f"| {name} | {len(runs)} | {sum(not run['differences'] for run in runs)} of {len(runs)} | {len(kills)} "
            f"| {sum(files.values())} ({told}) | {sum(run['processes'] for run in runs)} |"
        )
    return "\n".join(lines)
