"""The tables of this benchmark, from its JSON: per model, and what is met of the target."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.page import Target, origin, spread, target_table
from benchmarks.pipeline.search import PIPELINES
from benchmarks.pipeline.table import TITLES, ratios, setting, speeds

from .accuracy_table import accuracy as accuracy
from .links_table import links as links
from .sent import megabytes
from .simulation_table import simulation as simulation
from .sleepers_table import sleepers as sleepers

Results = dict[str, Any]
Figures = dict[str, Any]
#: In the order in which they are measured: those that are compared first stand side by side.
CONTESTANTS = (
    "al-ranks",
    "al-cut",
    "continuous",
    "al-replicas",
    "ddp",
    "1f1b",
    "zero-bubble",
    "interleaved",
    "gpipe",
    "2bw",
)
NAMES = {**TITLES, "al-ranks": "**AL, over two processes**", "al-cut": "AL, two threads with the same layers"}
NAMES["al-replicas"] = "AL, two replicas: each process has all layers and half of the rows"
NAMES["continuous"] = "AL, continuous: two threads that share all layers"
OF_THREADS = 0.95


def markdown(results: Results) -> str:
    """Return the tables of all models and the judgment of the target."""
    lines: list[str] = []
    for model, figures in results.items():
        lines += [f"### {model}", "", origin(figures), "", *_table(figures), "", _sent(figures), ""]
    return "\n".join([*lines, "### Targets", "", *target_table(targets(results))])


def targets(results: Results) -> list[Target]:
    """Return the targets that the measurements can judge; a ratio is one of figures of the same repetition."""
    return [
        Target(f"{model}: over two processes, of two threads with the same layers", OF_THREADS, over)
        for model, figures in results.items()
        if (over := ratios(figures, "al-ranks", "al-cut"))
    ]


def _table(figures: Figures) -> list[str]:
    lines = [
        "| | samples/s, median (range) | two processes over it, median (range) | sent per batch, MB "
        "| peak memory, MiB (per process) |",
        "|---|---|---|---|---|",
    ]
    for contestant in CONTESTANTS:
        runs = [run for run in figures["runs"] if run["contestant"] == contestant]
        good = [run for run in runs if "failed" not in run]
        if not good:
            reason = f"cannot run: {runs[0]['failed'].strip().splitlines()[-1]}" if runs else "not measured"
            lines.append(f"| {NAMES[contestant]} | {reason} | | | |")
            continue
        over = ratios(figures, "al-ranks", contestant)
        ratio = spread(over, 2) if over and contestant != "al-ranks" else ""
        peaks = [median(values) for values in zip(*(run["peak_mib"] for run in good), strict=True)]
        each = f" ({' + '.join(f'{peak:.0f}' for peak in peaks)})" if len(peaks) > 1 else ""
        own = spread(list(speeds(figures, contestant).values()))
        lines.append(f"| {NAMES[contestant]} | {own} | {ratio} | {megabytes(good[0])} | {sum(peaks):.0f}{each} |")
    return lines


def _sent(figures: Figures) -> str:
    """Return what goes between AL's processes, how the layers are cut, and the settings of the others."""
    sent = next((run["sent"] for run in figures["runs"] if "sent" in run and run["contestant"] == "al-ranks"), {})
    edges = ", ".join(f"{edge} {size:,} bytes" for edge, size in sent.items())
    choices = figures["prepared"]["choices"]
    cut = choices["al-cut"]["cut"]
    others = "; ".join(
        f"{NAMES[name].removeprefix('BP, ')}: {setting(name, choices[name])}"
        for name in CONTESTANTS
        if name in PIPELINES and "cut" in choices.get(name, {})
    )
    return (
        f"Per batch AL sends {edges}; its processes have {' and '.join(map(str, cut))} layers. The fastest settings of "
        f"the others: {others or 'not searched'}."
    )
