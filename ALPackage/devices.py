"""Which layer lives on which device, by name.

On the CPU a device says which worker may run the layer: "cpu" any of them, "cpu:K" worker K alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn

from .errors import PlacementError
from .layer import LocalLayer


def available_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def own_cores() -> int:
    """Return how many cores this process may keep busy: of several that torchrun has started here each has a share."""
    return max(1, int(core_share()))


def core_share() -> float:
    """Return this process's share of the cores; less than one where there are more processes than cores."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return available_cores() / max(1, int(processes)) if processes.isdecimal() else float(available_cores())


def available_devices() -> list[str]:
    """Return the names of this machine's devices: "cpu", then every GPU."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def resolve(devices: str | Sequence[str], layers: int) -> list[torch.device]:
    """Return one existing device per layer, from a list of names or "auto".

    "auto" spreads the layers over the GPUs in contiguous runs of near equal length, or puts all on the CPU if there is
    no GPU. Use it when there is no batch to measure costs with (see `placement.assign`). Any integer K is accepted in
    "cpu:K". Raises PlacementError for a wrong length, an invalid name, or a device that this machine does not have.
    """
    if devices == "auto":
        gpus = torch.cuda.device_count()
        if gpus == 0:
            return [torch.device("cpu")] * layers
        used = min(gpus, layers)
        return [torch.device("cuda", index * used // layers) for index in range(layers)]
    if isinstance(devices, str):
        raise PlacementError(f'devices: got {devices!r}; expected "auto" or a list with one device per layer')
    if len(devices) != layers:
        raise PlacementError(
            f"devices: the list has {len(devices)} entries but the model has {layers} layers; "
            'give one per layer, or "auto"'
        )
    return [_existing(name) for name in devices]


def _existing(name: str) -> torch.device:
    """Return the device of that name, or raise PlacementError with the names that this machine has."""
    have = available_devices()
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as reason:
        raise PlacementError(f"devices: {name!r} is not a device name; this machine has {', '.join(have)}") from reason
    if device.type == "cpu":
        return device
    if device.index is None:
        device = torch.device(device.type, 0)
    if str(device) not in have:
        raise PlacementError(f"devices: {name!r} is not there; this machine has {', '.join(have)}")
    return device


def local_layers(model: nn.Module) -> list[LocalLayer]:
    """Return the local layers inside `model`, in registration order."""
    return [module for module in model.modules() if isinstance(module, LocalLayer)]


def set_device(model: nn.Module, devices: str | Sequence[str]) -> list[torch.device]:
    """Assign every local layer of `model` to a device.

    Args:
        model: An ALStack, or any module that contains local layers; they are taken in registration order.
        devices: One name per layer, such as "cuda:1", "cpu" (any CPU worker may run the layer) or "cpu:K" (worker K
            alone); or "auto".

    Returns:
        The device of each layer, as in `ALStack.placement`.

    Raises:
        PlacementError: If the list does not fit the model or the machine; nothing has been moved then.

    Example:
        >>> layers = [AL(ENC(nn.Linear(4, 4), nn.Linear(4, 2)), AE(nn.Linear(2, 2), nn.Linear(2, 2))) for _ in range(3)]
        >>> stack = ALStack(layers)
        >>> set_device(stack, ["cpu:0", "cpu:0", "cpu:1"])
        [device(type='cpu', index=0), device(type='cpu', index=0), device(type='cpu', index=1)]
    """
    layers = local_layers(model)
    if not layers:
        raise PlacementError(f"set_device: {type(model).__name__} has no AL layer; build one with ALPackage.AL")
    where = resolve(devices, len(layers))
    for layer, device in zip(layers, where, strict=True):
        layer.assign(device)
    return where


def capacities(devices: Sequence[torch.device]) -> list[int] | None:
    """Return the free bytes of each GPU, or None for CPU workers, which share one memory."""
    if any(device.type != "cuda" for device in devices):
        return None
    # What the allocator has cached, as after measuring, counts as used but is there for the layers.
    return [
        torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        for device in devices
    ]
