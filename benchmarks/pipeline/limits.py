"""From measured layer costs to cuts, to the candidates of the search, and to the bound of every contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import bounds
from .bounds import Cost

__all__ = ["CONTESTANTS", "MICRO", "al_layers", "bound_seconds", "bp_layers", "candidates", "choose_cut"]

BATCH = 64
MICRO = (1, 2, 4, 8)
#: In the order of the table. Those with a schedule of torch.distributed.pipelining: its name and micro-batch counts.
PIPELINES: dict[str, tuple[str, tuple[int, ...]]] = {
    "bp-model-parallel": ("gpipe", (1,)),
    "gpipe": ("gpipe", (2, 4, 8)),
    "1f1b": ("1f1b", (2, 4, 8)),
}
#: "-shared": not tied to devices, every thread may use both cores, as threads on one CPU may.
CONTESTANTS = (
    "bp-one-device",
    *PIPELINES,
    "ddp",
    "al-sequential",
    "al-fm",
    "continuous",
    "al-fm-shared",
    "continuous-shared",
)
#: A cut whose bound is this much slower than the best bound of its contestant cannot win by noise: it is not tried.
HOPELESS = 1.15

Costs = Mapping[str, Any]


def al_layers(costs: Costs) -> list[Cost]:
    """Return the costs of the AL layers; the update is part of backward."""
    return [Cost(*pair) for pair in zip(costs["al"]["forward"], costs["al"]["backward"], strict=True)]


def bp_layers(costs: Costs, micro: int) -> list[Cost]:
    """Return the costs of the BP layers; forward and backward are those of one of `micro` micro-batches."""
    size = costs["bp"]["sizes"][str(BATCH // micro)]
    return [Cost(*three) for three in zip(size["forward"], size["backward"], costs["bp"]["update"], strict=True)]


def choose_cut(costs: Costs, contestant: str) -> list[int]:
    """Return the layers per device that suit a contestant on two devices best, by its bound."""
    cuts = bounds.cuts(len(costs["al"]["names"]))
    return min(cuts, key=lambda cut: bound_seconds(contestant, costs, cut, 60))


def candidates(costs: Costs) -> list[dict[str, Any]]:
    """Return what the search tries: contestant, schedule, cut, micro-batches, and the bound in seconds per batch."""
    tried = []
    for contestant, (schedule, counts) in PIPELINES.items():
        cuts = bounds.cuts(len(costs["bp"]["names"]))
        own = [
            {"contestant": contestant, "schedule": schedule, "cut": cut, "micro": micro}
            for micro in counts
            for cut in cuts
        ]
        for trial in own:
            trial["bound"] = bound_seconds(contestant, costs, trial, 10) / 10
        best = min(trial["bound"] for trial in own)
        tried += [trial for trial in own if trial["bound"] <= HOPELESS * best]
    return tried


def bound_seconds(contestant: str, costs: Costs, choice: Any, batches: int) -> float:
    """Return the least time of `batches` batches that the layers' costs and the contestant's schedule imply.

    `choice`: the layers per device of "continuous" and "al-fm", the trial of a contestant with a search, else None.
    """
    if contestant in PIPELINES:
        order = {"gpipe": bounds.gpipe_order, "1f1b": bounds.one_f_one_b_order}[choice["schedule"]]
        stages = [Cost.sum(layers) for layers in bounds.staged(bp_layers(costs, choice["micro"]), choice["cut"])]
        return bounds.pipelined(stages, order, choice["micro"], batches)
    if contestant == "ddp":  # each process has half a batch and all the weights; exchanging gradients is free
        return batches * Cost.sum(bp_layers(costs, 2)).total
    if contestant == "bp-one-device":
        return batches * Cost.sum(bp_layers(costs, 1)).total
    layers = al_layers(costs)
    if contestant == "al-fm":
        return batches * bounds.joined_on_devices(layers, choice)
    if contestant == "al-fm-shared":
        return batches * bounds.joined(layers)
    if contestant == "continuous":
        return bounds.continuous(bounds.staged(layers, choice), batches)
    if (
        contestant == "continuous-shared"
    ):  # two cores do no more than two cores' work, and a layer not two batches at once
        return batches * max(Cost.sum(layers).total / 2, *(layer.total for layer in layers))
    assert contestant == "al-sequential", contestant
    return batches * Cost.sum(layers).total


def ceiling(costs: Costs, stages: Sequence[int]) -> float:
    """Return the speed-up over one device that the cut of the continuous pipeline allows."""
    return bounds.ceiling(al_layers(costs), stages)
