"""Where the time of a run went, per worker and per layer. Two figures that must not be mixed up:

utilization  from times inside the run alone: the workers' time at work over their time. With it comes how many workers
             were at work on average, and the ceiling of that: a layer works on one batch at a time, a worker on one
             layer, and only on layers that it may run (`ALPackage.stage.crew.bound`).
speed-up     over a sequential run that has the machine to itself, of which only the layers' costs are known, measured
             before the run. It compares two situations (caches, clock rate, other processes), so it is an estimate,
             has no ceiling, and is not clamped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ALPackage.ranks.report import RankReport
from ALPackage.stage.crew import Member, bound
from ALPackage.stage.trace import Usage

from .advice import QUITE_NEAR, Facts, advise

#: Names that a cell of the printed tables lists at most.
LISTED = 4


@dataclass(frozen=True)
class Row:
    """How a worker spent the training time, in percent of it; together 100."""

    device: str
    layers: list[str]
    """Those that it may run."""
    busy: float
    data: float
    """Waiting for the next batch of data."""
    copy: float
    idle: float
    """Waiting for another worker, and what is not counted: draining, and copying the state for checkpoints."""
    ran: dict[str, float]
    """By layer that it ran: its share of the busy time, in percent."""


@dataclass(frozen=True)
class LayerRow:
    """What a layer cost inside the run."""

    layer: str
    share: float
    """Of all work, in percent."""
    ms_per_batch: float
    workers: dict[str, float]
    """By worker that ran it: its share of the layer's time, in percent."""


@dataclass(frozen=True)
class Utilization:
    """The rows of a run, and the figures that follow from them."""

    rows: list[Row]
    layers: list[LayerRow]
    at_work: float
    """Workers at work, on average; never above `ceiling`."""
    ceiling: float
    """Workers that could be at work at most, by the times of the layers inside the run."""
    speedup_estimate: float | None
    """Over a sequential run alone on the machine, by the costs measured before the run; None without them."""
    advice: str
    ranks: tuple[RankReport, ...] = ()
    """What each process holds and sends, where there are several."""
    weights: int = 0
    """Bytes of all parameters and buffers, as one process holds them, where there are several."""

    @property
    def utilization(self) -> float:
        """Time at work over time, of all workers together, in percent."""
        return 100.0 * self.at_work / len(self.rows)

    @property
    def bottleneck(self) -> str:
        """The layer that took the most time."""
        return max(self.layers, key=lambda row: row.share).layer

    def text(self) -> str:
        """Return the tables and what they mean."""
        workers: list[tuple[str, ...]] = [("worker", "busy", "idle", "waits for data", "copies", "ran")]
        for row in self.rows:
            shares = (f"{share:.0f} %" for share in (row.busy, row.idle, row.data, row.copy))
            workers.append((row.device, *shares, _listed(row.ran)))
        layers: list[tuple[str, ...]] = [("layer", "share", "ms per batch", "ran on")]
        for one in self.layers:
            layers.append((one.layer, f"{one.share:.0f} %", f"{one.ms_per_batch:.3g}", _listed(one.workers)))
        lines = [*_aligned(workers), *_aligned(layers)]
        if len(self.rows) > 1:
            lines.append(
                f"utilization {self.utilization:.0f} %: {self.at_work:.2f} of {len(self.rows)} workers at work on "
                f"average; the ceiling for these workers and layers is {self.ceiling:.2f}"
            )
            if self.speedup_estimate is not None:
                lines.append(
                    f"estimated speed-up over a sequential run: {self.speedup_estimate:.2f}x, by the layers' costs "
                    "that were measured before the run"
                )
        return "\n".join([*lines, *self._of_ranks(), self.advice])

    def _of_ranks(self) -> list[str]:
        lines = []
        for one in self.ranks:
            sends = ", ".join(f"{_size(size)} per batch to {to}" for to, size in one.sent.items()) or "nothing"
            held = f"weights {_size(one.weights)}, moments {_size(one.moments)}"
            which = f", replica {one.replica + 1}" if one.replica else ""
            lines.append(f"rank{one.rank} ({one.host}{which}): {', '.join(one.layers)}; {held}; sends {sends}")
        if lines:
            together = sum(one.weights for one in self.ranks if not one.replica)
            once = ", replicas not counted" if any(one.replica for one in self.ranks) else ""
            whole = _size(self.weights)
            lines.append(f"weights of all ranks{once}: {_size(together)}; the network in one process: {whole}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything for a JSON file, rounded."""
        return {
            "devices": [
                {
                    "device": row.device,
                    "layers": row.layers,
                    **{name: round(getattr(row, name), 2) for name in ("busy", "idle", "data", "copy")},
                    "ran": _rounded(row.ran),
                }
                for row in self.rows
            ],
            "layers": [
                {
                    "layer": one.layer,
                    "share": round(one.share, 2),
                    "ms_per_batch": float(f"{one.ms_per_batch:.4g}"),
                    "workers": _rounded(one.workers),
                }
                for one in self.layers
            ],
            "utilization": round(self.utilization, 2),
            "at_work": round(self.at_work, 4),
            "ceiling": round(self.ceiling, 4),
            "bottleneck": self.bottleneck,
            "speedup_estimate": None if self.speedup_estimate is None else round(self.speedup_estimate, 4),
            "advice": self.advice,
            **({"ranks": [vars(one) for one in self.ranks], "weights": self.weights} if self.ranks else {}),
        }


def measure_utilization(
    usages: Sequence[Usage],
    wall: float,
    places: Mapping[str, torch.device],
    *,
    schedule: str,
    batches: int,
    epochs: int = 1,
    costs: Sequence[tuple[str, float]] | None = None,
    threads: int = 1,
    cores: int = 1,
    gpus: int = 0,
    asked: int | None = None,
    computed: float | None = None,
    ranks: Sequence[RankReport] = (),
    weights: int = 0,
) -> Utilization:
    """Return the utilization of a run of `batches` batches, in `epochs` epochs, that took `wall` s.

    `usages`: one per worker. `places`: where each layer was placed, first to last. `costs`: (name, s per batch) of
    every layer, measured alone before the run. `threads`: per worker. `cores`, `gpus`: that the machine has. `asked`:
    for how many CPU workers the user asked. `computed`: s that cores worked for this process meanwhile, where known.
    `ranks`, `weights`: as in `Utilization`.
    """
    span = max(wall, 1e-9)
    rows = [_row(usage, span) for usage in usages]
    seconds = {name: sum(usage.layer_busy.get(name, 0.0) for usage in usages) for name in places}
    total = sum(seconds.values())
    facts = Facts(
        places=places,
        seconds=seconds,
        workers=[usage.device for usage in usages],
        wall=span,
        batches=batches,
        epochs=epochs,
        busy=_mean([row.busy for row in rows]),
        data=_mean([row.data for row in rows]),
        idle=_mean([row.idle for row in rows]),
        copying={row.device: row.copy for row in rows},
        threads=threads,
        cores=cores,
        gpus=gpus,
        asked=asked,
        computed=computed,
    )
    return Utilization(
        rows,
        [_layer_row(name, usages, seconds[name], total) for name in places],
        at_work=total / span,
        ceiling=total / _least(usages, seconds, places, ranks) if total else float(len(usages)),
        speedup_estimate=sum(cost for _, cost in costs) * batches / span if costs else None,
        advice=f"advice: {_of_ranks(rows, ranks) if ranks else _advice(schedule, facts)}",
        ranks=tuple(ranks),
        weights=weights,
    )


def _of_ranks(rows: Sequence[Row], ranks: Sequence[RankReport]) -> str:
    """Return a sentence about the processes: that they share cores, or which one sets the pace, if one does."""
    crowded = [one for one in ranks if one.cores < 1 and any(row.device == f"rank{one.rank} cpu:0" for row in rows)]
    if crowded:
        return (
            f"the processes on {crowded[0].host} share its cores, {crowded[0].cores:.2f} for each; more of them than "
            "there are cores bring nothing"
        )
    busy = {one.rank: _mean([row.busy for row in rows if row.device.startswith(f"rank{one.rank} ")]) for one in ranks}
    most = max(ranks, key=lambda one: busy[one.rank])
    share, who = busy[most.rank], f"rank{most.rank}, with {', '.join(most.layers)},"
    if share < QUITE_NEAR:
        return (
            f"{who} was at work {share:.0f} % of the time, and no rank more: they wait for data, for a core, for each "
            "other, or for the connections"
        )
    if len(most.layers) > 1:
        return f"{who} was at work {share:.0f} % of the time and sets the pace; al_gpu_list can give it fewer layers"
    return f"{who} was at work {share:.0f} % of the time and sets the pace; make that layer smaller to be faster"


def _advice(schedule: str, facts: Facts) -> str:
    if schedule == "sequential":
        if facts.cores == 1 and facts.gpus == 0:
            return "one worker does everything in turn, on the one core that there is"
        return "one worker does everything in turn; --schedule continuous lets the layers work at the same time"
    if schedule == "al-fm":
        return "every layer waits for the others at every batch; --schedule continuous does not"
    return advise(facts)


def _row(usage: Usage, span: float) -> Row:
    busy, data, copy = (100 * part / span for part in (usage.busy, usage.no_data, usage.copy))
    ran = {name: 100 * part / usage.busy for name, part in usage.layer_busy.items() if part}
    return Row(usage.device, usage.layers, busy, data, copy, max(0.0, 100 - busy - data - copy), ran)


def _layer_row(name: str, usages: Sequence[Usage], seconds: float, total: float) -> LayerRow:
    count = sum(usage.layer_batches.get(name, 0) for usage in usages)
    workers = {usage.device: 100 * usage.layer_busy[name] / seconds for usage in usages if usage.layer_busy.get(name)}
    return LayerRow(name, 100 * seconds / total if total else 0.0, 1e3 * seconds / max(1, count), workers)


def _least(
    usages: Sequence[Usage],
    seconds: Mapping[str, float],
    places: Mapping[str, torch.device],
    ranks: Sequence[RankReport],
) -> float:
    """Return the s that the run would have taken if nobody had waited for anything but the layers' order.

    The replicas of a layer divide its time, and the others do what the first ones do.
    """
    count = {name: sum(name in one.layers for one in ranks) or 1 for name in seconds}
    others = tuple(f"rank{one.rank} " for one in ranks if one.replica)
    first = [usage for usage in usages if not usage.device.startswith(others)]
    return bound([took / count[name] for name, took in seconds.items()], _members(first, places))


def _members(usages: Sequence[Usage], places: Mapping[str, torch.device]) -> list[Member]:
    number = {name: index for index, name in enumerate(places)}
    cpu = torch.device("cpu")  # cores count for the advice alone
    return [Member(usage.device, cpu, tuple(number[name] for name in usage.layers)) for usage in usages]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _size(count: int) -> str:
    """Return a number of bytes in the unit that a reader would take."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def _listed(shares: Mapping[str, float]) -> str:
    """Return the largest shares with their names, in the order that they are in."""
    kept = sorted(shares, key=lambda name: -shares[name])[:LISTED]
    told = [f"{name} {share:.0f} %" for name, share in shares.items() if name in kept]
    more = [f"{len(shares) - LISTED} more"] if len(shares) > LISTED else []
    return ", ".join([*told, *more])


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 2) for name, share in shares.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
