"""Where the time of a run went, per worker, and what would make it faster. Two figures that must not be mixed up:

utilization  from times inside the run alone: the workers' time at work over their time. With it comes how many workers
             were at work on average, and the ceiling of that. A layer works on one batch at a time and a worker on one
             layer, so no run of w workers can have more at work than min(w, all layers' time / the largest layer's).
speed-up     over a sequential run that has the machine to itself, of which only the layers' costs are known, measured
             before the run. It compares two situations (caches, clock rate, other processes), so it is an estimate,
             has no ceiling, and is not clamped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ALPackage.stage.trace import Usage

#: A layer that is at work for so much of the time sets the pace, in percent.
SATURATED = 90.0
#: A wait of so much of the time has a reason that is worth a sentence, in percent.
NOTABLE = 15.0


@dataclass(frozen=True)
class Row:
    """How a worker spent its time, in percent of the training time; the rest is filling and draining."""

    device: str
    layers: list[str]
    busy: float
    wait_input: float
    wait_space: float
    copy: float


@dataclass(frozen=True)
class Utilization:
    """The rows of a run, and the figures that follow from them."""

    rows: list[Row]
    at_work: float
    """Workers at work, on average; never above `ceiling`."""
    ceiling: float
    """Workers that could be at work at most, by the times of the layers inside the run."""
    bottleneck: str
    """The layer that took the most time."""
    speedup_estimate: float | None
    """Over a sequential run alone on the machine, by the costs measured before the run; None without them."""
    advice: str

    @property
    def utilization(self) -> float:
        """Time at work over time, of all workers together, in percent."""
        return 100.0 * self.at_work / len(self.rows)

    def text(self) -> str:
        """Return the table and what it means."""
        header = ("device", "busy", "waits for input", "waits for space", "copies", "layers")
        cells = [header] + [
            (
                row.device,
                *(f"{share:.0f} %" for share in (row.busy, row.wait_input, row.wait_space, row.copy)),
                " ".join(row.layers),
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        if len(self.rows) > 1:
            lines.append(
                f"utilization {self.utilization:.0f} %: {self.at_work:.2f} of {len(self.rows)} workers at work on "
                f"average, of a ceiling of {self.ceiling:.2f}; most time went into {self.bottleneck}"
            )
            if self.speedup_estimate is not None:
                lines.append(
                    f"estimated speed-up over a sequential run: {self.speedup_estimate:.2f}x, by the layers' costs "
                    "that were measured before the run"
                )
        return "\n".join([*lines, self.advice])

    def to_json(self) -> dict[str, Any]:
        """Return everything for a JSON file, rounded."""
        shares = ("busy", "wait_input", "wait_space", "copy")
        return {
            "devices": [
                {"device": row.device, "layers": row.layers} | {name: round(getattr(row, name), 2) for name in shares}
                for row in self.rows
            ],
            "utilization": round(self.utilization, 2),
            "at_work": round(self.at_work, 4),
            "ceiling": round(self.ceiling, 4),
            "bottleneck": self.bottleneck,
            "speedup_estimate": None if self.speedup_estimate is None else round(self.speedup_estimate, 4),
            "advice": self.advice,
        }


def measure_utilization(
    usages: Sequence[Usage],
    wall: float,
    *,
    costs: Sequence[tuple[str, float]] | None,
    batches: int,
    schedule: str,
    at_once: float = math.inf,
) -> Utilization:
    """Return the utilization of a run of `batches` batches in `wall` s.

    `usages`: one per worker, first stage to last. `costs`: (name, s per batch) of every layer, measured alone before
    the run. `at_once`: how many workers the cores allow to compute at the same time.
    """
    span = max(wall, 1e-9)
    rows = [
        Row(
            usage.device,
            usage.layers,
            *(100 * part / span for part in (usage.busy, usage.no_data, usage.idle - usage.no_data, usage.copy)),
        )
        for usage in usages
    ]
    layers = _layer_times(usages)
    bottleneck = max(layers, key=layers.__getitem__)
    total, largest = sum(layers.values()), layers[bottleneck]
    ceiling = min(float(len(usages)), total / largest if largest > 0 else float(len(usages)))
    return Utilization(
        rows,
        at_work=total / span,
        ceiling=ceiling,
        bottleneck=bottleneck,
        speedup_estimate=sum(cost for _, cost in costs) * batches / span if costs else None,
        advice=_advice(rows, layers, bottleneck, 100 * largest / span, schedule, at_once),
    )


def _layer_times(usages: Sequence[Usage]) -> dict[str, float]:
    """Return the seconds of work by layer; layers whose worker has counted them together stay together."""
    times: dict[str, float] = {}
    for usage in usages:
        parts = usage.layer_busy if any(usage.layer_busy.values()) else {", ".join(usage.layers): usage.busy}
        for layer, seconds in parts.items():
            times[layer] = times.get(layer, 0.0) + seconds
    return times


def _advice(
    rows: list[Row], layers: Mapping[str, float], bottleneck: str, share: float, schedule: str, at_once: float
) -> str:
    """Return one sentence: what holds the run back, and what to do about it. `share`: the bottleneck's, of the time."""
    first = rows[0]
    busiest = max(rows, key=lambda row: row.busy)
    copying = max(rows, key=lambda row: row.copy)
    if schedule == "sequential":
        return "advice: one worker does everything in turn; --schedule continuous lets the layers work at the same time"
    if schedule == "al-fm":
        return "advice: every layer waits for the others at every batch; --schedule continuous does not"
    if first.wait_input > NOTABLE:
        return (
            f"advice: the first stage waits {first.wait_input:.0f} % of its time for data; "
            "load less per batch (augmentation, image_size), or give the loader a core of its own"
        )
    if len(rows) == 1:
        return "advice: one stage does everything; more devices, or --workers, let the layers work at the same time"
    if copying.copy > NOTABLE:
        return (
            f"advice: {copying.device} copies {copying.copy:.0f} % of its time; cut the layers where less is handed on"
        )
    if share >= SATURATED:
        return f"advice: {bottleneck} alone sets the pace; make it cheaper or divide it into two layers"
    if len(rows) > at_once:
        return (
            f"advice: {len(rows)} workers share the cores, and the system balances them; only more cores, or less work "
            "per batch, would make it faster"
        )
    if busiest.busy >= SATURATED and min(row.busy for row in rows) < SATURATED - NOTABLE and len(busiest.layers) > 1:
        return (
            f"advice: {busiest.device} sets the pace with {', '.join(busiest.layers)}; another worker or device could "
            "take some of them (python -m ALPackage.placement shows what it would bring)"
        )
    if busiest.busy < SATURATED:
        return (
            f"advice: the busiest worker, {busiest.device}, is busy only {busiest.busy:.0f} % of the time; "
            "train on more batches per epoch, so that filling and draining weigh less, or on larger ones"
        )
    return "advice: the workers are balanced and busy; only more devices and more layers would make it faster"
