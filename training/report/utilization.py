"""Where the time of a run went, per device, and what would make it faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ALPackage.placement.plan import ceiling_of
from ALPackage.stage.trace import Usage

#: A stage that works so much of the time sets the pace.
SATURATED = 90.0
#: A stage that waits so much of the time for something has a reason that is worth a sentence.
NOTABLE = 15.0


@dataclass(frozen=True)
class Row:
    """How a worker spent its time, in percent of the training time; the rest went into filling and draining."""

    device: str
    layers: list[str]
    busy: float
    wait_input: float
    wait_space: float
    copy: float


@dataclass(frozen=True)
class Utilization:
    """The rows of a run, and the figures that follow from them.

    `ceiling`: the sum of the stages' costs over the largest. `speedup`: over one device, by the costs that were
    measured before the run, None without them. `efficiency`: speedup over ceiling.
    """

    rows: list[Row]
    ceiling: float
    speedup: float | None
    bottleneck: str
    advice: str

    @property
    def efficiency(self) -> float | None:
        """Speed-up over ceiling."""
        return None if self.speedup is None else self.speedup / self.ceiling

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
        if self.speedup is not None and self.efficiency is not None and len(self.rows) > 1:
            lines.append(
                f"{self.speedup:.2f}x one device of a ceiling of {self.ceiling:.2f}x: "
                f"{100 * self.efficiency:.0f} % efficiency; bottleneck {self.bottleneck}"
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
            "ceiling": round(self.ceiling, 4),
            "speedup": None if self.speedup is None else round(self.speedup, 4),
            "efficiency": None if self.efficiency is None else round(self.efficiency, 4),
            "bottleneck": self.bottleneck,
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

    `usages`: one per worker, in the order of the stages. `costs`: (name, s per batch) of every layer alone on one
    device; without them the ceiling follows from the busy times. `at_once`: how many workers can work at the same time.
    """
    span = max(wall, 1e-9)
    rows = [
        Row(
            usage.device,
            usage.layers,
            *(100 * part / span for part in (usage.busy, usage.wait_input, usage.wait_space, usage.copy)),
        )
        for usage in usages
    ]
    cost = dict(costs) if costs else {}
    stages = [sum(cost[name] for name in usage.layers) if cost else usage.busy for usage in usages]
    largest = max(range(len(stages)), key=stages.__getitem__)
    ceiling = ceiling_of(stages, at_once)
    speedup = sum(stages) * batches / span if cost else None
    bottleneck = max(usages[largest].layers, key=lambda name: cost.get(name, 0.0))
    advice = _advice(rows, stages, largest, bottleneck, schedule, at_once)
    return Utilization(rows, ceiling, speedup, bottleneck, advice)


def _advice(rows: list[Row], stages: list[float], largest: int, bottleneck: str, schedule: str, at_once: float) -> str:
    """Return one sentence: what holds the run back, and what to do about it."""
    first, slowest = rows[0], rows[largest]
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
    if slowest.copy > NOTABLE:
        return (
            f"advice: {slowest.device} copies {slowest.copy:.0f} % of its time; cut the layers where less is handed on"
        )
    if sum(stages) > at_once * stages[largest]:
        return (
            f"advice: {len(rows)} workers share the cores, and the system balances them; only more cores, or less work "
            "per batch, would make it faster"
        )
    if len(slowest.layers) > 1 and stages[largest] > 1.1 * sum(stages) / len(stages):
        if slowest.device.startswith("cpu"):
            return (
                f"advice: {slowest.device} sets the pace with {', '.join(slowest.layers)}; a worker per layer "
                f"(--workers {sum(len(row.layers) for row in rows)}) lets the system balance the cores"
            )
        return (
            f"advice: {slowest.device} sets the pace with {', '.join(slowest.layers)}; "
            f"another device could take some of them (python -m ALPackage.placement tells what it would give)"
        )
    if stages[largest] > 1.1 * sum(stages) / len(stages):
        return f"advice: {bottleneck} alone sets the pace; make it cheaper or divide it into two layers"
    if slowest.busy < SATURATED:
        return (
            f"advice: the stages are balanced but {slowest.device} is busy only {slowest.busy:.0f} % of the time; "
            "train on more batches per epoch, so that filling and draining weigh less, or on larger ones"
        )
    return "advice: the stages are balanced and busy; only more devices and more layers would make it faster"
