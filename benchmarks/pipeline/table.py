"""Print what a results file says as Markdown: `python -m benchmarks.pipeline.table [results.json]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from data.storage.streams import exit_code

from .limits import CONTESTANTS, al_layers, bound_seconds, bp_layers, ceiling

__all__ = ["checks", "markdown", "memory", "summary"]

Results = dict[str, Any]
#: (model, what continuous is compared with, target): with "estimate" the speed-up over it, else how many times as fast.
TARGETS = (
    ("vgg", "estimate", 0.93),
    ("transformer", "estimate", 0.93),
    ("vgg", "gpipe", 1.35),
    ("vgg", "1f1b", 1.2),
    ("vgg", "al-fm", 1.25),
)
TITLES = {
    "bp-one-device": "BP, one device",
    "bp-model-parallel": "BP, model parallel",
    "gpipe": "BP, GPipe",
    "1f1b": "BP, 1F1B",
    "ddp": "BP, DDP",
    "al-sequential": "AL, sequential, one device",
    "al-fm": "AL, al-fm",
    "continuous": "**AL, continuous**",
    "al-fm-shared": "AL, al-fm, both cores shared",
    "continuous-shared": "AL, continuous, both cores shared",
}


def runs_of(results: Results, model: str, contestant: str) -> list[dict[str, Any]]:
    """Return the measurements of a contestant, in order."""
    own = [run for run in results["runs"] if (run["model"], run["contestant"]) == (model, contestant)]
    return sorted(own, key=lambda run: run["repetition"])


def speed(results: Results, model: str, contestant: str) -> float:
    """Return the median of samples/s."""
    return median(run["samples_per_s"] for run in runs_of(results, model, contestant))


def checks(results: Results) -> list[dict[str, Any]]:
    """Return every target that the measurements can judge: what, target, value, its range over repetitions, and met.

    The value is a ratio of medians; the range is that of the ratios within each repetition.
    """
    judged = []
    for model, other, target in TARGETS:
        base = "al-sequential" if other == "estimate" else other
        ours, theirs = runs_of(results, model, "continuous"), runs_of(results, model, base)
        if not ours or len(ours) != len(theirs):
            continue
        facts = results["models"][model]
        scale = 1 / ceiling(facts["costs"], facts["choices"]["continuous"]) if other == "estimate" else 1.0
        paired = [scale * a["samples_per_s"] / b["samples_per_s"] for a, b in zip(ours, theirs, strict=True)]
        value = scale * speed(results, model, "continuous") / speed(results, model, base)
        judged.append(
            {
                "what": f"{model}: speed-up over AL on one device, over its estimate"
                if other == "estimate"
                else f"{model}: over {other}",
                "target": target,
                "value": value,
                "range": (min(paired), max(paired)),
                "met": value >= target,
            }
        )
    return judged


def markdown(results: Results) -> str:
    """Return the tables and the judgment of the targets."""
    settings = results["settings"]
    memory = "kept" if settings["environment"] else "left to glibc's defaults"
    changed = " with uncommitted changes" if results["uncommitted_changes"] else ""
    lines = [
        f"{results['cpu']}, cores {' and '.join(map(str, settings['cores']))} of {results['cores_of_machine']}; "
        f"{results['system']}; Python {results['python']}, torch {results.get('torch', '?')}; "
        f"{results['date'][:10]}, commit {results['commit'][:12]}{changed}. "
        f"n = {settings['repeats']} interleaved repetitions of {settings['batches']} batches of {settings['batch']}; "
        f"freed memory {memory}; load average before a measurement at most "
        f"{max([run['load_before'][0] for run in results['runs']], default=0.0):.1f}. "
        f"Command: `{results['command']}`.",
    ]
    if results["interruptions"]:
        lines.append(f"\nInterrupted and resumed {results['interruptions']} times: not one run.")
    for model, facts in results["models"].items():
        lines += ["", f"### {model}", "", *_table(results, model), "", *_costs(facts)]
    lines += ["", "### Targets", "", "| | target | median | range of repetitions | |", "|---|---|---|---|---|"]
    for check in checks(results):
        low, high = check["range"]
        verdict = "met" if check["met"] else "not met"
        lines.append(
            f"| {check['what']} | {check['target']} | {check['value']:.3f} | {low:.3f} - {high:.3f} | {verdict} |"
        )
    return "\n".join(lines)


def summary(results: Results) -> str:
    """Return the speeds alone: samples/s of every contestant on every model, and the continuous schedule's over it."""
    models = list(results["models"])
    lines = [
        "| samples/s, median (continuous over it) | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    for contestant in CONTESTANTS:
        cells = []
        for model in models:
            if runs_of(results, model, contestant):
                own = speed(results, model, contestant)
                ratio = speed(results, model, "continuous") / own
                cells.append(f"{own:.1f}" + (f" ({ratio:.2f}x)" if contestant != "continuous" else ""))
        if cells:
            lines.append(f"| {TITLES[contestant]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory(results: Results) -> str:
    """Return the peak memory alone: MiB of every contestant's processes on every model, and what was there before."""
    models = list(results["models"])
    lines = ["| peak memory, MiB (before the model) | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for contestant in CONTESTANTS:
        found = [runs_of(results, model, contestant) for model in models]
        if all(found):
            cells = [f"{sum(_medians(runs, 'peak_mib')):.0f} ({sum(_medians(runs, 'base_mib')):.0f})" for runs in found]
            lines.append(f"| {TITLES[contestant]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _medians(runs: list[dict[str, Any]], key: str) -> list[float]:
    """Return the median over the repetitions, for each process of a contestant."""
    return [median(values) for values in zip(*(run[key] for run in runs), strict=True)]


def _table(results: Results, model: str) -> list[str]:
    facts = results["models"][model]
    lines = [
        "| | samples/s, median (range) | continuous over it | estimate, samples/s | measured over estimate "
        "| peak memory, MiB (per process) | of it before the model | set-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for contestant in CONTESTANTS:
        runs = runs_of(results, model, contestant)
        if not runs:
            continue
        speeds = [run["samples_per_s"] for run in runs]
        ratio = ""
        if runs_of(results, model, "continuous"):
            ratio = f"{speed(results, model, 'continuous') / median(speeds):.2f}"
        estimate = runs[0]["bound_samples_per_s"]
        peaks, base = _medians(runs, "peak_mib"), sum(_medians(runs, "base_mib"))
        each = f" ({' + '.join(f'{peak:.0f}' for peak in peaks)})" if len(peaks) > 1 else ""
        lines.append(
            f"| {TITLES[contestant]} | {median(speeds):.1f} ({min(speeds):.1f} - {max(speeds):.1f}) | {ratio} "
            f"| {estimate:.1f} | {median(speeds) / estimate:.2f} | {sum(peaks):.0f}{each} | {base:.0f} "
            f"| {_setup(contestant, facts)} |"
        )
    return lines


def _setup(contestant: str, facts: dict[str, Any]) -> str:
    choice = facts["choices"].get(contestant)
    if contestant in ("al-fm", "continuous"):
        return f"{_cut(choice)} layers on the devices"
    if contestant == "continuous-shared":
        return "a worker per layer"
    if contestant == "bp-model-parallel":
        return f"stages of {_cut(choice['cut'])} layers"
    if choice is not None:
        return f"stages of {_cut(choice['cut'])} layers, {choice['micro']} micro-batches"
    return "half of each batch per process" if contestant == "ddp" else ""


def _cut(cut: list[int]) -> str:
    return " and ".join(map(str, cut))


def _costs(facts: dict[str, Any]) -> list[str]:
    """Return the layer costs, and the estimated speed-up of the continuous pipeline with and without the fill."""
    costs, stages = facts["costs"], facts["choices"]["continuous"]
    al = ", ".join(
        f"{name} {1e3 * layer.total:.1f}" for name, layer in zip(costs["al"]["names"], al_layers(costs), strict=True)
    )
    bp = ", ".join(
        f"{name} {1e3 * layer.total:.1f}" for name, layer in zip(costs["bp"]["names"], bp_layers(costs, 1), strict=True)
    )
    alone = bound_seconds("al-sequential", costs, None, 60)
    filled = alone / bound_seconds("continuous", costs, stages, 60)
    return [
        f"Layer costs per batch, measured alone before the runs, ms, one core: AL {al}; BP {bp}. Estimated speed-up "
        f"of the continuous pipeline (all layers over the busiest stage): {ceiling(costs, stages):.3f}; with the fill, "
        f"over 60 batches: {filled:.3f}.",
    ]


def main() -> None:
    """Print the tables of one file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("results.json")
    print(markdown(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    sys.exit(exit_code(main))
