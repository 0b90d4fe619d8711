"""The tables of the slowed links, from their JSON: speeds, and the share of the unlimited speed that each keeps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.page import Target, origin, spread, target_table
from benchmarks.pipeline.table import speeds

from .sent import megabytes

Results = dict[str, Any]
Figures = dict[str, Any]
NAMES = {
    "al-ranks": "**AL**, fp32",
    "al-compressed": "**AL**, fp32, compressed without loss on the way",
    "al-bf16": "AL, rounded to bf16 on the way",
    "ddp": "BP, DDP",
    "1f1b": "BP, 1F1B",
}
CONTESTANTS = tuple(NAMES)
#: The ways of AL that are exact, of which a user takes the better one for the link.
EXACT = ("al-ranks", "al-compressed")
FREE = "unlimited"


def links(results: Results) -> str:
    """Return the tables of all models and the judgment of the targets."""
    lines: list[str] = []
    for model, figures in results.items():
        lines += [f"### {model}: slow links", "", origin(figures), "", *_table(figures), "", _measured(figures), ""]
    return "\n".join([*lines, "### Targets: slow links", "", *target_table(targets(results))])


def shares(figures: Figures, contestant: str, rate: str) -> list[float]:
    """Return the share of its own unlimited speed that a contestant keeps, per repetition; of AL's without coding."""
    own = EXACT[0] if contestant in EXACT else contestant
    slow, free = _speeds(figures, contestant, rate), _speeds(figures, own, FREE)
    return [slow[repeat] / free[repeat] for repeat in slow if repeat in free]


def targets(results: Results) -> list[Target]:
    """Return the targets: AL in fp32, in its better way, keeps at least the share of who of the others keeps most."""
    found = []
    for model, figures in results.items():
        for rate in figures["settings"]["rates"]:
            own, way = _best(figures, EXACT, rate)
            others, best = _best(figures, ("ddp", "1f1b"), rate)
            if rate == FREE or not own or not others:
                continue
            ratio = [one / other for one, other in zip(own, others, strict=False)]
            how = ", compressed," if way != EXACT[0] else ""
            what = f"{model}, {rate}: the share that AL{how} keeps over that of the best other, {NAMES[best]}"
            found.append(Target(what, 1.0, ratio))
    return found


def _best(figures: Figures, contestants: Sequence[str], rate: str) -> tuple[list[float], str]:
    """Return the shares of who keeps most of them by the median, and who that is."""
    found = [(shares(figures, name, rate), name) for name in contestants]
    return max(found, key=lambda pair: median(pair[0]) if pair[0] else 0.0)


def _table(figures: Figures) -> list[str]:
    rates = figures["settings"]["rates"]
    lines = [
        "| samples/s, median (range); share of the unlimited speed; setting | " + " | ".join(rates) + " |",
        "|---|" + "---|" * len(rates),
    ]
    for contestant in CONTESTANTS:
        cells = [_cell(figures, contestant, rate) for rate in rates]
        lines.append(f"| {NAMES[contestant]} | " + " | ".join(cells) + " |")
    return lines


def _cell(figures: Figures, contestant: str, rate: str) -> str:
    own = _speeds(figures, contestant, rate)
    if not own:
        failed = [run["failed"] for run in _of(figures, rate) if run["contestant"] == contestant and "failed" in run]
        return f"cannot run: {failed[0].strip().splitlines()[-1]}" if failed else "not measured"
    run = next(run for run in _of(figures, rate) if run["contestant"] == contestant and "failed" not in run)
    share = "" if rate == FREE else f"; **{median(shares(figures, contestant, rate)):.2f}**"
    setting = _setting(figures["prepared"]["links"][rate]["choices"].get(contestant, {}))
    counter = f"{run['on_wire'] / 1e6:.2f} on the link"
    return f"{spread(list(own.values()))}{share}{setting}; {megabytes(run)} MB per batch ({counter})"


def _setting(choice: dict[str, Any]) -> str:
    if "ranks" in choice:
        return f"; {' and '.join(str(choice['ranks'].count(rank)) for rank in (0, 1))} layers"
    return f"; {' and '.join(map(str, choice['cut']))} layers, {choice['micro']} micro-batches" if choice else ""


def _measured(figures: Figures) -> str:
    """Return the speeds of the link as they were measured, and what the layers hand on."""
    prepared = figures["prepared"]
    found = ", ".join(f"{rate} {8 * link['bytes_per_s'] / 1e6:,.0f}" for rate, link in prepared["links"].items())
    layers = prepared["workload"]["al"][:-1]
    handed_on = ", ".join(f"{layer['name']} {layer['sent_bytes'] / 1e6:.2f}" for layer in layers)
    return (
        f"The link's speed as the program itself measures it, Mbit/s: {found}. What a layer of AL hands on, MB per "
        f"batch: {handed_on}."
    )


def _speeds(figures: Figures, contestant: str, rate: str) -> dict[int, float]:
    return speeds({"runs": _of(figures, rate)}, contestant)


def _of(figures: Figures, rate: str) -> list[dict[str, Any]]:
    return [run for run in figures["runs"] if run["rate"] == rate]
