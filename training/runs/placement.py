"""Where the layers of a run go: the config's list, or a cut that follows what the layers cost on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ALPackage import ALStack
from ALPackage.devices import candidates, capacities, resolve, stage_sizes
from ALPackage.errors import PlacementError
from ALPackage.placement import plan
from ALPackage.placement.cost import LayerCost, measure
from ALPackage.placement.plan import Plan
from ALPackage.stage.threads import available_cores

from ..config.spec import RunSpec
from ..errors import ConfigError
from ..trainers.trainer import mixed_precision


@dataclass(frozen=True)
class Placement:
    """The device of every layer, the number of layers of every stage, and what was measured to decide it."""

    devices: list[torch.device]
    stages: list[int]
    plan: Plan | None

    @property
    def names(self) -> list[str]:
        """The devices by name, as `set_device` takes them."""
        return [str(device) for device in self.devices]


def place(stack: ALStack, batch: tuple[Any, Any], spec: RunSpec) -> Placement:
    """Return where the layers of a stack go; their costs are measured with `batch`, in the precision of the run.

    A list in the config is obeyed, every layer is measured on its own device, and the plan only says what to expect.
    The sequential schedule has one worker and needs no plan: with "auto" it gets one device. Raises ConfigError where
    the layers do not fit the devices.
    """
    config, given = spec.config, spec.devices
    # One worker does everything, so there is nothing to balance.
    if config.schedule == "sequential":
        one = candidates(config.workers, 1)[:1] * len(stack)
        devices = one if given is None else resolve(list(given), len(stack))
        return Placement(devices, stage_sizes(devices), None)
    if given is None:
        # CPU workers are alike, and so are the GPUs of a machine as far as "auto" goes: one measures for all.
        choice = candidates(config.workers, len(stack))
        try:
            costs = _measure(stack, batch, spec, choice[:1] * len(stack))
            made = plan(costs, choice, capacities(choice), _at_once(choice, spec.threads))
        except PlacementError as error:
            raise ConfigError(f"al_gpu_list: {error}") from None
        return Placement(made.per_layer_devices, list(made.sizes), made)
    # Neighbors on one device are a stage; the costs decide nothing here, they only say what to expect.
    devices = resolve(list(given), len(stack))
    sizes = stage_sizes(devices)
    firsts = [devices[sum(sizes[:stage])] for stage in range(len(sizes))]
    costs = _measure(stack, batch, spec, devices)
    return Placement(devices, sizes, Plan(tuple(costs), tuple(sizes), tuple(firsts), _at_once(firsts, spec.threads)))


def set_layout(model: nn.Module, devices: Sequence[torch.device] = ()) -> None:
    """Give the weights of a model that is, or will be, on GPUs the memory layout that their tensor cores read."""
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    if on_gpu or any(device.type == "cuda" for device in devices):
        model.to(memory_format=torch.channels_last)  # on the CPU it is slower: benchmarks/NOTES.md


def _measure(stack: ALStack, batch: tuple[Any, Any], spec: RunSpec, devices: list[torch.device]) -> list[LayerCost]:
    """Measure each layer on its device, as the run will compute: in the same precision and memory layout."""
    set_layout(stack, devices)
    with mixed_precision(devices, spec.config.precision):
        return measure(stack, batch, threads=spec.threads, devices=devices)


def _at_once(devices: list[torch.device], threads: int) -> float:
    """Return how many of these devices can work at the same time: CPU workers share the cores."""
    on_cpu = sum(device.type == "cpu" for device in devices)
    return len(devices) - on_cpu + min(on_cpu, available_cores() / threads)
