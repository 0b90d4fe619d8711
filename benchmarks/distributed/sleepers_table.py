"""The table of the sleeping layers, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page import Target, origin, spread, target_table

OF_CEILING = 0.93


def ceiling(times: Sequence[float], options: Mapping[str, Any]) -> float:
    """Return the least seconds per batch: what the busiest process sleeps. Replicas share a stage's rows.

    `options`: "ranks", the first rank of every layer's stage, and perhaps "replicas", how many each stage has.
    """
    stages = list(dict.fromkeys(options["ranks"]))
    replicas = options.get("replicas") or [1] * len(stages)
    each = dict(zip(stages, replicas, strict=True))
    return max(
        sum(time for time, rank in zip(times, options["ranks"], strict=True) if rank == stage) / each[stage]
        for stage in stages
    )


def sleepers(results: dict[str, Any]) -> str:
    """Return the table and the judgment of the targets."""
    lines = [
        "| | a layer sleeps, ms (a slow one twice as long) | batches/s, median (range) | the ceiling "
        "| of the ceiling, median (range) |",
        "|---|---|---|---|---|",
    ]
    for (milliseconds, case), runs in _cases(results).items():
        good = [run for run in runs if "failed" not in run]
        if not good:
            lines.append(
                f"| {case} | {milliseconds:g} | cannot run: {runs[0]['failed'].strip().splitlines()[-1]} | | |"
            )
            continue
        speeds = [results["settings"]["batches"] / run["seconds"] for run in good]
        most = 1 / ceiling(good[0]["times"], good[0])
        shares = spread([run["of_ceiling"] for run in good], 3)
        lines.append(f"| {case} | {milliseconds:g} | {spread(speeds)} | {most:.1f} | {shares} |")
    return "\n".join([*lines, "", *target_table(targets(results)), "", origin(results)])


def targets(results: dict[str, Any]) -> list[Target]:
    """Return the target of every case of several processes that could run."""
    return [
        Target(f"{case}, {milliseconds:g} ms: of the ceiling", OF_CEILING, values)
        for (milliseconds, case), runs in _cases(results).items()
        if (values := [run["of_ceiling"] for run in runs if "failed" not in run]) and len(runs[0]["times"]) > 1
    ]


def _cases(results: dict[str, Any]) -> dict[tuple[float, str], list[dict[str, Any]]]:
    """Return the runs by the milliseconds that a layer sleeps, and case."""
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for run in results["runs"]:
        found.setdefault((run["milliseconds"], run["case"]), []).append(run)
    return dict(sorted(found.items(), key=lambda pair: pair[0][0]))
