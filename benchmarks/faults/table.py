"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["markdown", "over_ranks"]


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


def over_ranks(results: dict[str, Any]) -> str:
    """Return the figures of runs over ranks as a Markdown table."""
    lines = [
        "| command | ranks | runs | equal to the undisturbed one | killed | before, during, after training "
        "| while a file was written |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, about in results["commands"].items():
        if not (runs := [run for run in results["runs"] if run["name"] == name]):
            continue
        ranks = ", ".join(f"rank {rank}: {count}" for rank, count in sorted(Counter(r["rank"] for r in runs).items()))
        when = Counter(run["when"] for run in runs)
        files = Counter(run["hit"].split()[-1] for run in runs if run["hit"])
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(files.items())) or "0"
        lines.append(
            f"| {name.partition(',')[0]} | {about['ranks']} | {len(runs)} "
            f"| {sum(not run['differences'] for run in runs)} of {len(runs)} | {ranks} "
            f"| {when['before']}, {when['during']}, {when['after']} | {told} |"
        )
    return "\n".join(lines)
