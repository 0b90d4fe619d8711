"""Where the layers are, who may run them, and what to expect of that from the layers' costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..stage.crew import Member, bound
from .cost import LayerCost
from .limits import Limit, limits
from .over_ranks import rank_name


@dataclass(frozen=True)
class Plan:
    """Layers with their costs and devices, and the workers.

    `at_once`: how many CPU workers can compute at the same time, if the cores are fewer than the workers. The costs are
    measured before the run, so what follows from them is an estimate, which a run may exceed.
    """

    costs: tuple[LayerCost, ...]
    devices: tuple[torch.device, ...]
    """One per layer, as in `ALStack.placement`."""
    workers: tuple[Member, ...]
    at_once: float = math.inf
    ranks: tuple[int, ...] = ()
    """The process of every layer, where there are several."""
    replicas: tuple[int, ...] = ()
    """How many processes divide a layer's rows, where some have several; `workers` are then those of the first ones."""

    @property
    def seconds(self) -> list[float]:
        """Seconds per batch that each layer keeps its worker busy, what it has to receive from elsewhere included.

        Replicas divide this among themselves.
        """
        shares = self.shares
        received = [
            before.hand_over if there != here else 0.0
            for before, there, here in zip(shares, self.devices, self.devices[1:], strict=False)
        ]
        return [cost.total + more for cost, more in zip(shares, [0.0, *received], strict=True)]

    @property
    def shares(self) -> list[LayerCost]:
        """The costs of what one replica of each layer does."""
        counts = self.replicas or (1,) * len(self.costs)
        timed = ("forward", "backward", "hand_over")
        return [
            replace(cost, **{name: getattr(cost, name) / count for name in timed})
            for cost, count in zip(self.costs, counts, strict=True)
        ]

    @property
    def ceiling(self) -> float:
        """The estimated ceiling of the gain over one worker: the layers' time together over the least per batch."""
        least = bound(self.seconds, self.workers, self.at_once)
        return sum(cost.total for cost in self.costs) / least if least > 0 else 1.0

    @property
    def bound_by(self) -> Limit:
        """What the ceiling comes from."""
        return limits(self.seconds, self.workers, self.at_once)[0]

    def text(self) -> str:
        """Return a table of the layers, and sentences about what they allow."""
        work = sum(cost.total for cost in self.costs) or 1.0
        placed = len(set(self._places)) > 1
        rows = [("layer", "forward", "backward", "share", "memory", "device")]
        for cost, place in zip(self.costs, self._places, strict=True):
            share = f"{100 * cost.total / work:.0f} %"
            times = f"{cost.forward * 1e3:.1f} ms", f"{cost.backward * 1e3:.1f} ms"
            rows.append((cost.name, *times, share, f"{cost.bytes / 2**20:.0f} MiB", place))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for name, *figures, where in rows:
            cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=False)]
            lines.append("  ".join([name.ljust(widths[0]), *cells, *([where] if placed else [])]))
        return "\n".join([*lines, self._who(), *self._why(), most_of(self.costs)])

    def to_json(self) -> dict[str, Any]:
        """Return the plan for a JSON file; times in ms."""
        names, why = self._names, self.bound_by
        about = {"layer": [names[layer] for layer in why.layers], "workers": why.workers, "cores": ()}[why.kind]
        return {
            "layers": [
                {
                    "name": cost.name,
                    "forward_ms": round(cost.forward * 1e3, 4),
                    "backward_ms": round(cost.backward * 1e3, 4),
                    "hand_over_ms": round(cost.hand_over * 1e3, 4),
                    "bytes": cost.bytes,
                    "sent_bytes": cost.sent,
                    "device": place,
                }
                for cost, place in zip(self.costs, self._places, strict=True)
            ],
            "workers": [
                {"name": worker.name, "layers": [names[layer] for layer in worker.layers]} for worker in self.workers
            ],
            "ceiling": round(self.ceiling, 4),
            "bound_by": " ".join([why.kind, ", ".join(about)]).strip(),
        }

    @property
    def _places(self) -> list[str]:
        if not self.ranks:
            return [str(device) for device in self.devices]
        counts = self.replicas or (1,) * len(self.ranks)
        return [rank_name(*one) for one in zip(self.ranks, self.devices, counts, strict=True)]

    @property
    def _names(self) -> list[str]:
        return [cost.name for cost in self.costs]

    def _who(self) -> str:
        """Return how many workers there are, and what they allow together."""
        count = len(self.workers)
        if count == 1:
            return f"1 worker, {self.workers[0].name}, runs all layers: nothing is done at the same time"
        expected = f"estimated ceiling {self.ceiling:.2f}x over one"
        if all(len(worker.layers) == len(self.costs) for worker in self.workers):
            return f"{count} workers share all layers: {expected}"
        groups: dict[tuple[int, ...], list[str]] = {}
        for worker in self.workers:
            groups.setdefault(worker.layers, []).append(worker.name)
        shared = "; ".join(
            f"{_listed(names)}: {', '.join(self._names[layer] for layer in layers) or 'no layer'}"
            for layers, names in groups.items()
        )
        return f"{count} workers ({shared}): {expected}"

    def _why(self) -> list[str]:
        """Return a sentence about the ceiling, where it is neither the largest layer's nor all workers'."""
        why = self.bound_by
        count = len(self.workers)
        if why.kind == "cores" and count > 1:
            return [f"the cores are enough for {self.at_once:g} of the CPU workers at a time"]
        if why.kind == "workers" and len(why.workers) < count:
            share = 100 * sum(self.seconds[layer] for layer in why.layers) / sum(self.seconds)
            names = ", ".join(self._names[layer] for layer in why.layers)
            who = "it alone may" if len(why.workers) == 1 else "only they may"
            sets = "sets" if len(why.workers) == 1 else "set"
            return [f"{_listed(why.workers)} {sets} the pace: {who} run {names}, {share:.0f} % of the work"]
        return []


def most_of(costs: Sequence[LayerCost]) -> str:
    """Return which layer bounds what any number of workers can bring, and by how much."""
    largest = max(costs, key=lambda cost: cost.total)
    work = sum(cost.total for cost in costs)
    if len(costs) == 1 or largest.total in (0.0, work):
        return f"{largest.name} is all of the work: more workers bring nothing"
    return (
        f"{largest.name} is {100 * largest.total / work:.0f} % of the work: no number of workers brings more than "
        f"{work / largest.total:.2f}x"
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
