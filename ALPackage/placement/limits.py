"""What bounds a pipeline: its largest layer, what only some workers may run, or the cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..stage.crew import Member


@dataclass(frozen=True)
class Limit:
    """One reason why a batch takes `seconds` at least, with the layers and the workers that it is about."""

    seconds: float
    kind: Literal["layer", "workers", "cores"]
    layers: tuple[int, ...]
    workers: tuple[str, ...]


def limits(costs: Sequence[float], members: Sequence[Member], at_once: float = math.inf) -> list[Limit]:
    """Return the reasons why no run takes fewer seconds per batch, the strongest first.

    `costs`: seconds per batch of each layer. `at_once`: how many CPU workers can compute at the same time. The first
    reason's seconds are those of `ALPackage.stage.crew.bound`.
    """
    every = range(len(costs))
    largest = max(every, key=costs.__getitem__)
    able = [tuple(member.name for member in members if layer in member.layers) for layer in every]
    found = [Limit(costs[largest], "layer", (largest,), able[largest])]
    for workers in dict.fromkeys(able):
        # Nobody else may run these, so their work is shared by these workers at best.
        own = tuple(layer for layer in every if set(able[layer]) <= set(workers))
        found.append(Limit(sum(costs[layer] for layer in own) / len(workers), "workers", own, workers))
    on_cpu = [member for member in members if member.device.type == "cpu"]
    if on_cpu:
        shared = tuple(sorted({layer for member in on_cpu for layer in member.layers}))
        names = tuple(member.name for member in on_cpu)
        found.append(Limit(sum(costs[layer] for layer in shared) / at_once, "cores", shared, names))
    # Of equal ones the first that was found is the one to name. Sums of the same numbers may differ in the last bits.
    return sorted(found, key=lambda limit: -float(f"{limit.seconds:.12g}"))
