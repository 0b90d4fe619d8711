"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.page import Target, origin, target_table

OVERLAP, ENGINE_US = 0.97, 60.0
Runs = list[dict[str, Any]]


def most(times: Sequence[float], workers: int) -> float:
    """Return the speed-up that workers could have: min(workers, sum / largest)."""
    return min(float(workers), sum(times) / max(times))


def shares(runs: Runs, workers: str) -> list[float]:
    """Return the speed-up over the sequential schedule beside it, over min(workers, sum / largest), per repetition."""
    return [run["sequential"] / run["continuous"][workers] / most(run["times"], int(workers)) for run in runs]


def markdown(results: dict[str, Any]) -> str:
    """Return the figures as Markdown tables, and what is met of the targets."""
    cases = grouped(results["runs"], "overlap", ("layers", "balance"))
    crews = sorted({int(workers) for runs in cases.values() for workers in runs[0]["continuous"]})
    lines = [
        f"| layers of {results['settings']['milliseconds']:g} ms (mean) | "
        + " | ".join(f"{workers} workers" for workers in crews)
        + " | al-fm | worker time asked for |",
        "|---|" + "---|" * (len(crews) + 2),
    ]
    for (layers, balance), runs in cases.items():
        cells = [_cell(runs, str(workers)) for workers in crews]
        joined = median(run["sequential"] / run["al-fm"] for run in runs)
        used = [utilization(runs, workers) for workers in runs[0]["continuous"]]
        lines.append(
            f"| {layers}, {balance} | {' | '.join(cells)} | {joined:.2f}x "
            f"| {100 * min(used):.1f} to {100 * max(used):.1f} % |"
        )
    engines = grouped(results["runs"], "engine", ("layers", "workers"))
    bare = grouped(results["runs"], "bare queue", ("layers",))
    crews = sorted({workers for _, workers in engines})
    lines += [
        "",
        "| empty layers, us per batch and layer | " + " | ".join(_workers(n) for n in crews) + " | a bare queue |",
        "|---|" + "---|" * (len(crews) + 1),
    ]
    for (layers,), runs in bare.items():
        cells = [f"{median(run['engine_us'] for run in engines[layers, workers]):.0f}" for workers in crews]
        queue = median(run["bare_queue_us"] for run in runs)
        lines.append(f"| {layers} | {' | '.join(cells)} | {queue:.0f} |")
    repeats = results["settings"]["repeats"]
    lines += ["", *target_table(targets(results)), "", f"n = {repeats} interleaved repetitions. {origin(results)}"]
    return "\n".join(lines)


def targets(results: dict[str, Any]) -> list[Target]:
    """Return the targets: each stands for all cases, and shows the one that is furthest from it."""
    cases = [
        (f"{layers} layers, {balance}, {workers} workers", shares(runs, workers))
        for (layers, balance), runs in grouped(results["runs"], "overlap", ("layers", "balance")).items()
        for workers in runs[0]["continuous"]
    ]
    good = sum(median(values) >= OVERLAP for _, values in cases)
    where, values = min(cases, key=lambda case: median(case[1]))
    engines = [
        (f"{layers} layers, {_workers(workers)}", [run["engine_us"] for run in runs])
        for (layers, workers), runs in grouped(results["runs"], "engine", ("layers", "workers")).items()
    ]
    cheap = sum(median(times) <= ENGINE_US for _, times in engines)
    slow, times = max(engines, key=lambda case: median(case[1]))
    return [
        Target(
            f"speed-up over min(workers, sum / largest), {good} of {len(cases)} cases; the least: {where}",
            OVERLAP,
            values,
        ),
        Target(
            f"the engine's time per batch and layer, {cheap} of {len(engines)} cases; the most: {slow}",
            ENGINE_US,
            times,
            at_most=True,
            unit=" us",
        ),
    ]


def grouped(runs: Iterable[dict[str, Any]], what: str, keys: tuple[str, ...]) -> dict[tuple[Any, ...], Runs]:
    """Return the measurements of one kind by the values of `keys`."""
    groups: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        if run["what"] == what:
            groups.setdefault(tuple(run[key] for key in keys), []).append(run)
    return groups


def utilization(runs: Runs, workers: str) -> float:
    """Return the share of a run's time that the sleeps alone would have taken, fill and drain included.

    A sleep never returns early, so this is at most 1.
    """
    times = runs[0]["times"]
    return sum(times) / most(times, int(workers)) / median(run["continuous"][workers] for run in runs)


def _cell(runs: Runs, workers: str) -> str:
    if workers not in runs[0]["continuous"]:
        return ""
    share, least = median(shares(runs, workers)), most(runs[0]["times"], int(workers))
    speedup = f"{share * least:.2f}x of {least:.2f} ({share:.2f})"
    return speedup if share >= OVERLAP else f"**{speedup}**"


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count > 1)}"
