"""A cut of layers into stages, and what to expect of it from the layers' costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .cost import LayerCost
from .partition import partition


@dataclass(frozen=True)
class Plan:
    """Layers with their costs, the number of layers per stage, and the device of each stage.

    `at_once`: how many stages can work at the same time, if that is fewer than there are, as with more CPU workers than
    cores. The costs are measured before the run, so what follows from them is an estimate, which a run may exceed.
    """

    costs: tuple[LayerCost, ...]
    sizes: tuple[int, ...]
    devices: tuple[torch.device, ...]
    at_once: float = math.inf

    @property
    def stages(self) -> list[tuple[LayerCost, ...]]:
        """The layers of each stage."""
        starts = [sum(self.sizes[:stage]) for stage in range(len(self.sizes))]
        return [self.costs[start : start + size] for start, size in zip(starts, self.sizes, strict=True)]

    @property
    def stage_times(self) -> list[float]:
        """Seconds per batch of each stage."""
        return [sum(cost.total for cost in stage) for stage in self.stages]

    @property
    def ceiling(self) -> float:
        """The estimated ceiling of the gain over one device: the sum of the layers' times over the busiest stage's."""
        return ceiling_of(self.stage_times, self.at_once)

    @property
    def bottleneck(self) -> list[str]:
        """The names of the layers of the busiest stage."""
        times = self.stage_times
        return [cost.name for cost in self.stages[times.index(max(times))]]

    @property
    def per_layer_devices(self) -> list[torch.device]:
        """The device of each layer."""
        return [device for device, size in zip(self.devices, self.sizes, strict=True) for _ in range(size)]

    def text(self) -> str:
        """Return the plan as a table of the layers and two sentences."""
        width = max(len(cost.name) for cost in self.costs)
        lines = [f"{'layer':<{width}}  forward  backward   memory  device"]
        for cost, device in zip(self.costs, self.per_layer_devices, strict=True):
            lines.append(
                f"{cost.name:<{width}}  {cost.forward * 1e3:4.1f} ms  {cost.backward * 1e3:5.1f} ms  "
                f"{cost.bytes / 2**20:4.0f} MiB  {device}"
            )
        busiest = ", ".join(self.bottleneck)
        lines.append(f"estimated ceiling {self.ceiling:.2f}x over one device; the busiest stage is {busiest}")
        return "\n".join([*lines, self._one_more()])

    def _one_more(self) -> str:
        if len(self.sizes) == len(self.costs):
            return "one more device would bring nothing: every layer has one"
        # Without `at_once`: one more device brings its own processor.
        better = Plan(self.costs, *_cut(self.costs, len(self.sizes) + 1))
        if better.ceiling <= self.ceiling * 1.005:
            if len(self.bottleneck) == 1:
                return f"one more device would bring nothing: {self.bottleneck[0]} alone sets the pace"
            return "one more device would bring nothing"
        return f"one more device would bring {better.ceiling:.2f}x"

    def to_json(self) -> dict[str, Any]:
        """Return the plan for a JSON file; times in ms."""
        return {
            "layers": [
                {
                    "name": cost.name,
                    "forward_ms": round(cost.forward * 1e3, 4),
                    "backward_ms": round(cost.backward * 1e3, 4),
                    "bytes": cost.bytes,
                    "device": str(device),
                }
                for cost, device in zip(self.costs, self.per_layer_devices, strict=True)
            ],
            "stages": list(self.sizes),
            "ceiling": round(self.ceiling, 4),
        }


def ceiling_of(stages: Sequence[float], at_once: float = math.inf) -> float:
    """Return the most that stages of these times can gain over one device if `at_once` of them can work at a time."""
    balanced = sum(stages) / max(stages) if max(stages) > 0 else float(len(stages))
    return min(balanced, max(1.0, at_once))


def plan(
    costs: Sequence[LayerCost],
    devices: Sequence[torch.device],
    capacity: Sequence[int] | None = None,
    at_once: float = math.inf,
) -> Plan:
    """Return the plan whose busiest device has the least to do; it uses the first of `devices`, and none in vain.

    `capacity`: free bytes of each device. `at_once`: as for `Plan`. Raises PlacementError where no cut fits.
    """
    sizes = partition(
        [cost.total for cost in costs], len(devices), memory=[cost.bytes for cost in costs], capacity=capacity
    )
    return Plan(tuple(costs), tuple(sizes), tuple(devices[: len(sizes)]), at_once)


def _cut(costs: Sequence[LayerCost], parts: int) -> tuple[tuple[int, ...], tuple[torch.device, ...]]:
    sizes = partition([cost.total for cost in costs], parts)
    return tuple(sizes), tuple(torch.device("cpu", index) for index in range(len(sizes)))
