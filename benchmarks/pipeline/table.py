"""The tables of this benchmark, from its JSON: per model, and what is met of the targets."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from ALPackage.stage.crew import bound, crew
from benchmarks.page import Target, origin, spread, target_table

Results = dict[str, Any]
Figures = dict[str, Any]
TITLES = {
    "bp": "BP, one core",
    "bp-two-threads": "BP, two intra-op threads",
    "bp-model-parallel": "BP, model parallel",
    "gpipe": "BP, GPipe",
    "1f1b": "BP, 1F1B",
    "interleaved": "BP, interleaved 1F1B",
    "zero-bubble": "BP, zero bubble",
    "2bw": "BP with a delay of one step (2BW)",
    "ddp": "BP, DDP",
    "al-sequential": "AL, sequential, one core",
    "al-two-runs": "AL, two sequential runs at the same time",
    "al-fm": "AL, al-fm",
    "al-cut": "AL, the best contiguous cut",
    "continuous": "**AL, continuous**",
}
OF_BOTH_CORES, OF_BP = 0.97, 1.0
OVER_1F1B = {"vgg": 1.8, "transformer": 1.4}
#: How many of the models must be at least as fast as the best that BP does with both cores.
AHEAD_IN = 3


def speeds(figures: Figures, contestant: str) -> dict[int, float]:
    """Return samples/s by repetition, of the repetitions that did not fail."""
    own = [run for run in figures["runs"] if run["contestant"] == contestant and "failed" not in run]
    return {run["repeat"]: run["samples_per_s"] for run in sorted(own, key=lambda run: int(run["repeat"]))}


def ratios(figures: Figures, contestant: str, other: str) -> list[float]:
    """Return how many times as fast a contestant was as another one, in each repetition that has both."""
    ours, theirs = speeds(figures, contestant), speeds(figures, other)
    return [ours[repeat] / theirs[repeat] for repeat in ours if repeat in theirs]


def markdown(results: Results) -> str:
    """Return the tables of all models and the judgment of the targets."""
    lines: list[str] = []
    for model, figures in results.items():
        lines += [f"### {model}", "", origin(figures), "", *_table(figures), "", *_notes(figures), ""]
    return "\n".join([*lines, "### Targets", "", *target_table(targets(results))])


def summary(results: Results) -> str:
    """Return the speeds alone: samples/s of every contestant on every model, and the continuous schedule's over it."""
    lines = [
        "| samples/s, median (continuous over it) | " + " | ".join(results) + " |",
        "|---|" + "---|" * len(results),
    ]
    for contestant, title in TITLES.items():
        cells = []
        for figures in results.values():
            own, over = speeds(figures, contestant), ratios(figures, "continuous", contestant)
            ratio = f" ({median(over):.2f}x)" if over and contestant != "continuous" else ""
            cells.append(f"{median(own.values()):.1f}{ratio}" if own else "")
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets(results: Results) -> list[Target]:
    """Return every target that the measurements can judge; a ratio is one of figures of the same repetition."""
    found: list[Target] = []
    ahead: list[float] = []
    for model, figures in results.items():
        together = ratios(figures, "continuous", "al-two-runs")
        if together:
            found.append(
                Target(
                    f"{model}: continuous over two sequential runs at the same time",
                    OF_BOTH_CORES,
                    together,
                    limit=_idle(figures),
                )
            )
        if model in OVER_1F1B and (over := ratios(figures, "continuous", "1f1b")):
            limit = _limit(figures, "1f1b")
            found.append(Target(f"{model}: continuous over 1F1B", OVER_1F1B[model], over, limit=limit))
        best = max(("ddp", "bp-two-threads"), key=lambda name: median(speeds(figures, name).values() or [0.0]))
        if over := ratios(figures, "continuous", best):
            ahead.append(median(over))
            what = f"{model}: continuous over BP with both cores at its faster, {TITLES[best].removeprefix('BP, ')}"
            found.append(Target(what, OF_BP, over, limit=_limit(figures, best)))
        if alone := ratios(figures, "al-sequential", "bp"):
            found.append(Target(f"{model}: AL, sequential, over BP, both on one core", OF_BP, alone))
    if ahead:
        count = float(sum(value >= OF_BP for value in ahead))
        found.append(
            Target(
                "models in which continuous is ahead of the faster of DDP and BP with two threads", AHEAD_IN, [count]
            )
        )
    return found


def _limit(figures: Figures, other: str) -> str:
    """Return what the two cores do together with AL's work, over what the other contestant does."""
    together = ratios(figures, "al-two-runs", other)
    return f"two AL runs at the same time over it: {median(together):.3f}" if together else ""


def _idle(figures: Figures) -> str:
    """Return the share of the workers' time in which no layer was at work, fill and drain included."""
    runs = [run for run in figures["runs"] if run["contestant"] == "continuous" and "busy_s" in run]
    if not runs:
        return ""
    idle = median(1 - run["busy_s"] / len(figures["settings"]["cores"]) / run["seconds"] for run in runs)
    return f"its workers were idle {100 * idle:.1f} % of the time, fill and drain included"


def _table(figures: Figures) -> list[str]:
    lines = [
        "| | samples/s, median (range) | continuous over it, median (range) "
        "| peak memory, MiB (per process) | setting |",
        "|---|---|---|---|---|",
    ]
    for contestant, title in TITLES.items():
        runs = [run for run in figures["runs"] if run["contestant"] == contestant]
        good = [run for run in runs if "failed" not in run]
        if not good:
            reason = runs[0]["failed"].strip().splitlines()[-1] if runs else ""
            lines += [f"| {title} | cannot run | | | {reason} |"] * bool(runs)
            continue
        over = ratios(figures, "continuous", contestant)
        ratio = spread(over, 2) if over and contestant != "continuous" else ""
        peaks = [median(values) for values in zip(*(run["peak_mib"] for run in good), strict=True)]
        each = f" ({' + '.join(f'{peak:.0f}' for peak in peaks)})" if len(peaks) > 1 else ""
        chosen = setting(contestant, figures["prepared"]["choices"].get(contestant, {}))
        lines.append(
            f"| {title} | {spread(list(speeds(figures, contestant).values()))} | {ratio} "
            f"| {sum(peaks):.0f}{each} | {chosen} |"
        )
    return lines


def setting(contestant: str, choice: dict[str, Any]) -> str:
    """Return the setting of a contestant in words, if it has one."""
    if contestant == "ddp":
        return "half of each batch per process"
    if contestant == "continuous":
        return "any layer on either of two workers"
    if contestant == "al-cut":
        return f"{' and '.join(map(str, choice['cut']))} layers on two workers"
    if not choice:
        return ""
    micro = f", {choice['micro']} micro-batches" if choice["micro"] > 1 else ""
    order = ", in a V" if choice["schedule"].endswith("-v") else ""
    return f"stages of {', '.join(map(str, choice['cut']))} layers{order}{micro}"


def _notes(figures: Figures) -> list[str]:
    """Return the layers' costs, what they let two workers hope for, and how many batches were measured."""
    costs, batches = figures["prepared"]["costs"], figures["prepared"]["batches"]
    al = list(costs["al"].values())
    two = crew([torch.device("cpu")] * len(al), workers=2)
    base = median(run["base_mib"][0] for run in figures["runs"] if "failed" not in run)
    listed = {
        form: ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in of_form.items())
        for form, of_form in costs.items()
    }
    return [
        f"n = {figures['settings']['repeats']} interleaved repetitions of {batches['joined']} batches, of "
        f"{batches['flowing']} where a pipeline fills and drains once per run. Layer costs per batch, measured alone "
        f"before the runs on one core, ms: AL {listed['al']}; BP {listed['bp']}. Estimated speed-up of AL on two "
        f"workers: {sum(al) / bound(al, two):.2f}x. Of each process's memory, {base:.0f} MiB precede the model."
    ]
