"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.accuracy.table import spread
from benchmarks.page import origin

CONTESTANTS = {
    "bp": "BP",
    "bp-threads": "BP, two threads",
    "al-sequential": "AL, sequential",
    "al-continuous": "AL, two workers",
}


def markdown(results: dict[str, Any]) -> str:
    """Return how each network is cut, the time of a step, and peak memory."""
    settings = results["settings"]
    titles = dict.fromkeys(run["title"] for run in results["runs"])
    lines = [
        "| network | parameters, millions | layers: blocks of each | share of the work of each, % |",
        "|---|---|---|---|",
    ]
    for title in titles:
        run = next((run for run in _runs(results, title) if "failed" not in run), None)
        if run is not None:
            shares = " / ".join(f"{100 * one / sum(run['flops']):.0f}" for one in run["flops"])
            blocks = " / ".join(map(str, run["blocks"]))
            lines.append(f"| {title} | {run['parameters'] / 1e6:.1f} | {blocks} | {shares} |")
    lines += ["", *_table(results, list(titles), "seconds per step (shortest - longest)", _seconds)]
    lines += ["", *_table(results, list(titles), "peak memory over that before the model, MiB (over BP's)", _memory)]
    lines += [
        "",
        f"Batches of {settings['batch']}; one process per cell, mean of {settings['steps']} steps after "
        f"{settings['warmup']}. {origin(results)}",
    ]
    return "\n".join(lines)


def _runs(results: dict[str, Any], title: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["title"] == title]


def _table(results: dict[str, Any], titles: list[str], what: str, cell: Any) -> list[str]:
    lines = [f"| {what} | " + " | ".join(CONTESTANTS.values()) + " |", "|---|" + "---|" * len(CONTESTANTS)]
    for title in titles:
        runs = {run["contestant"]: run for run in _runs(results, title)}
        cells = []
        for contestant in CONTESTANTS:
            run = runs.get(contestant)
            cells.append("" if run is None else "cannot run" if "failed" in run else cell(run, runs.get("bp", {})))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _seconds(run: dict[str, Any], bp: dict[str, Any]) -> str:
    times = run["step_s"]
    return f"{mean(times):.2f} ({min(times):.2f} - {max(times):.2f})"


def _memory(run: dict[str, Any], bp: dict[str, Any]) -> str:
    over = f" ({run['peak_mib'] / bp['peak_mib']:.2f})" if run is not bp and bp.get("peak_mib") else ""
    return f"{run['peak_mib']:,.0f}{over}"


def learned(results: dict[str, Any]) -> str:
    """Return the test accuracy of each network with both methods, each at the rate that is better on validation."""
    lines = ["| test accuracy, % | BP | AL | rate of BP | of AL | seeds |", "|---|---|---|---|---|---|"]
    for title in dict.fromkeys(run["title"] for run in results["runs"]):
        chosen = [_chosen(_runs(results, title), method) for method in ("bp", "al")]
        tests = [[run["test"] for run in runs] for runs in chosen]
        lines.append(
            f"| {title} | {' | '.join(map(spread, tests))} | "
            f"{' | '.join(format(runs[0]['lr'], 'g') for runs in chosen)} | {min(map(len, chosen))} |"
        )
    settings = results["settings"]
    lines += [
        "",
        f"Mean ± sample standard deviation over the seeds, after {settings['epochs']} epochs of batches of "
        f"{settings['batch']}; Adam. {origin(results)}",
    ]
    return "\n".join(lines)


def _chosen(runs: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """Return a method's runs at the rate with the best mean on validation."""
    rates = dict.fromkeys(run["lr"] for run in runs if run["method"] == method)
    groups = [[run for run in runs if run["method"] == method and run["lr"] == lr] for lr in rates]
    return max(groups, key=lambda group: mean(run["val"] for run in group))
