"""Where the layers of a run go: the config's list, or a cut that follows what the layers cost on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ALPackage import ALStack
from ALPackage.devices import candidates, capacities, resolve, stage_sizes
from ALPackage.errors import PlacementError
from ALPackage.placement import plan
from ALPackage.placement.cost import measure
from ALPackage.placement.plan import Plan
from ALPackage.stage.threads import available_cores

from ..config.load import device_list, layer_count
from ..config.schema import Config, Method
from ..errors import ConfigError


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


def check_devices(config: Config, model: str, method: Method) -> None:
    """Raise `ConfigError` for a device that this machine does not have, naming the key of the config."""
    try:
        resolve(device_list(config, model, method), layer_count(model, method, config))
    except PlacementError as error:
        raise ConfigError(f"{method}_gpu_list: {str(error).removeprefix('devices: ')}") from None


def place(stack: ALStack, batch: tuple[Any, Any], config: Config, model: str, threads: int) -> Placement:
    """Return where the layers of `stack` go; their costs are measured on copies, with `batch`.

    A list in the config is obeyed, and its plan only says what to expect of it. The sequential schedule has one worker
    and needs no plan: with "auto" it gets one device. Raises `ConfigError` where the layers do not fit the devices.
    """
    given = device_list(config, model, "al")
    if config.schedule == "sequential":
        devices = resolve(given, len(stack)) if given != "auto" else candidates(config.workers, 1)[:1] * len(stack)
        return Placement(devices, stage_sizes(devices), None)
    if given == "auto":
        choice = candidates(config.workers, len(stack))
        try:
            costs = measure(stack, batch, threads=threads, devices=choice[:1] * len(stack))
            made = plan(costs, choice, capacities(choice), _at_once(choice, threads))
        except PlacementError as error:
            raise ConfigError(f"al_gpu_list: {error}") from None
        return Placement(made.per_layer_devices, list(made.sizes), made)
    devices = resolve(given, len(stack))
    sizes = stage_sizes(devices)
    firsts = [devices[sum(sizes[:stage])] for stage in range(len(sizes))]
    costs = measure(stack, batch, threads=threads, devices=devices)
    return Placement(devices, sizes, Plan(tuple(costs), tuple(sizes), tuple(firsts), _at_once(firsts, threads)))


def _at_once(devices: list[torch.device], threads: int) -> float:
    """Return how many of these devices can work at the same time: CPU workers share the cores."""
    on_cpu = sum(device.type == "cpu" for device in devices)
    return len(devices) - on_cpu + min(on_cpu, available_cores() / threads)
