"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from collections import Counter
from textwrap import shorten
from typing import Any

__all__ = ["ends", "in_time", "markdown", "over_ranks"]

#: Seconds within which all ranks have to end, whatever goes wrong.
LIMIT = 10.0
#: Faults that are no rank's: the line need not name it.
OUTER = ("Ctrl-C", "SIGTERM", "full disk")


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


def ends(results: dict[str, Any]) -> str:
    """Return how soon the processes of runs ended in which something went wrong, as a Markdown table."""
    lines = [
        "| what | to whom | when | seconds until all ranks had ended, at most | and torchrun "
        "| exit codes of ranks; of torchrun | one line in every other rank | such as |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys((run["fault"], run["whom"], run["when"]) for run in results["runs"]):
        runs = [run for run in results["runs"] if (run["fault"], run["whom"], run["when"]) == case]
        if skipped := [run["skipped"] for run in runs if "skipped" in run]:
            lines.append(f"| {' | '.join(case)} | not measured: {skipped[0]} | | | | |")
            continue
        slowest = max(runs, key=lambda run: max(run["seconds"]))
        verdict = "" if all(map(in_time, runs)) else " **too long**"
        torchrun = [run["torchrun_seconds"] for run in runs if run["torchrun_seconds"] is not None]
        codes = [*sorted({str(code) for run in runs for code in run["codes"].values()}, key=int)]
        own = sorted({str(run["torchrun_code"]) for run in runs if run["torchrun_code"] is not None})
        lines.append(
            f"| {' | '.join(case)} | {max(slowest['seconds']):.1f} of {len(runs)}{verdict} "
            f"| {f'{max(torchrun):.1f}' if torchrun else '-'} | {', '.join(codes) or '-'}; {', '.join(own) or '-'} "
            f"| {sum(map(told, runs))} of {len(runs)} | {_words(slowest)} |"
        )
    return "\n".join(lines)


def in_time(run: dict[str, Any]) -> bool:
    """Tell whether all ranks ended in time, and no process stayed."""
    return "skipped" in run or (max(run["seconds"]) <= LIMIT and not run["stayed"])


def told(run: dict[str, Any]) -> bool:
    """Tell whether every other rank than the one with the fault has said one line, which names that one."""
    named = None if run["victim"] is None or run["fault"] in OUTER else f"rank {run['victim']}"
    return all(len(lines) == 1 and (named is None or named in lines[0]) for lines in _others(run))


def _others(run: dict[str, Any]) -> list[list[str]]:
    return [lines for rank, lines in enumerate(run["said"]) if rank != run["victim"]]


def _words(run: dict[str, Any]) -> str:
    """Return how the line begins that one of the others has said."""
    lines = [lines[-1] for lines in _others(run) if lines]
    return f"`{shorten(lines[0].split(';')[0], 120, placeholder=' ..')}`" if lines else "-"
