"""The table of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.page import Target, origin, spread, target_table
from benchmarks.pipeline.table import TITLES

CONTESTANTS = ("continuous", "al-cut", "ddp", "1f1b")
KEPT = 0.70


def kept(results: dict[str, Any], model: str, contestant: str) -> list[float]:
    """Return the share of the undisturbed speed that is kept, per repetition."""
    speeds = {
        (run["repeat"], run["disturbed"]): run["samples_per_s"]
        for run in results["runs"]
        if (run["model"], run["contestant"]) == (model, contestant) and "failed" not in run
    }
    repeats = sorted({repeat for repeat, _ in speeds})
    return [
        speeds[repeat, True] / speeds[repeat, False]
        for repeat in repeats
        if (repeat, True) in speeds and (repeat, False) in speeds
    ]


def markdown(results: dict[str, Any]) -> str:
    """Return the shares of the undisturbed speed, what is met of the target, and how it was measured."""
    models = list(dict.fromkeys(run["model"] for run in results["runs"]))
    lines = [
        "| share of the undisturbed speed, median (range) | "
        + " | ".join(f"{model} | samples/s, undisturbed and disturbed" for model in models)
        + " |",
        "|---|" + "---|" * (2 * len(models)),
    ]
    for contestant in CONTESTANTS:
        cells = []
        for model in models:
            shares = kept(results, model, contestant)
            cells.append(spread(shares, 2) if shares else "cannot run")
            cells.append(" and ".join(_speeds(results, model, contestant)))
        lines.append(f"| {TITLES[contestant]} | {' | '.join(cells)} |")
    targets = [
        Target(f"{model}: {TITLES['continuous'].strip('*')}, share that is kept", KEPT, shares)
        for model in models
        if (shares := kept(results, model, "continuous"))
    ]
    taken = [run["neighbor_share"] for run in results["runs"] if "neighbor_share" in run]
    settings = results["settings"]
    batches = " and ".join(str(results["prepared"][model]["batches"]["joined"]) for model in models)
    return "\n".join(
        [
            *lines,
            "",
            *target_table(targets),
            "",
            f"n = {settings['repeats']} interleaved repetitions of {batches} batches. The process beside took "
            f"{100 * median(taken):.0f} % of core {settings['cores'][0]} (median), so "
            f"{1 - median(taken) / 2:.2f} of the two cores were left. {origin(results)}",
        ]
    )


def _speeds(results: dict[str, Any], model: str, contestant: str) -> list[str]:
    """Return the median speeds, undisturbed and disturbed."""
    found = []
    for disturbed in (False, True):
        own = [
            run["samples_per_s"]
            for run in results["runs"]
            if (run["model"], run["contestant"], run["disturbed"]) == (model, contestant, disturbed)
            and "failed" not in run
        ]
        found += [f"{median(own):.1f}"] if own else []
    return found
