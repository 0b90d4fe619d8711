"""Where the layers of a run go and which workers run them, and what their measured costs allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import nn

from ALPackage import ALStack
from ALPackage.devices import capacities, core_share, own_cores, resolve
from ALPackage.errors import PlacementError
from ALPackage.placement import assign
from ALPackage.placement.cost import LayerCost, measure
from ALPackage.placement.over_ranks import Stages, over_ranks, rank_name, ranks_named
from ALPackage.placement.plan import Plan
from ALPackage.ranks.messages import WIRES
from ALPackage.stage.crew import Member, crew

from ..config.spec import RunSpec
from ..errors import ConfigError
from ..trainers.trainer import mixed_precision
from .ranks import Ranks

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """The device of every layer, and what its cost lets us expect; one worker that does everything needs no plan."""

    devices: list[torch.device]
    plan: Plan | None
    ranks: tuple[int, ...] | None = None
    """The process of every layer, where there are several; of replicas the first one."""
    _: KW_ONLY
    replicas: tuple[int, ...] | None = None
    """How many processes each stage has, where the config says so."""
    stages: tuple[int, ...] | None = None
    """The stage of every layer, in a pipeline of BP."""

    @property
    def names(self) -> list[str]:
        """The devices by name, with the process where there are several."""
        if self.ranks is None:
            return [str(device) for device in self.devices]
        return [rank_name(*one) for one in zip(self.ranks, self.devices, self.counts, strict=True)]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many processes divide the rows of every layer."""
        if self.ranks is None or self.replicas is None:
            return (1,) * len(self.devices)
        stages = list(dict.fromkeys(self.ranks))
        return tuple(self.replicas[stages.index(rank)] for rank in self.ranks)

    def has(self, rank: int) -> list[bool]:
        """Return of every layer whether it is in a process."""
        ranks = self.ranks or (rank,) * len(self.devices)
        return [first <= rank < first + count for first, count in zip(ranks, self.counts, strict=True)]

    def layers_of(self, rank: int, names: Sequence[str]) -> list[str]:
        """Return the names of a process's layers, from those of all."""
        return [name for name, own in zip(names, self.has(rank), strict=True) if own]

    def here(self, rank: int, own: str | None = None) -> list[str]:
        """Return the devices as `set_device` takes them in a process: what is in another one stays on the CPU.

        `own`: the process's own device, for a replica other than the first one of a layer on a GPU.
        """
        firsts = self.ranks or (rank,) * len(self.devices)
        found = []
        for device, first, here in zip(self.devices, firsts, self.has(rank), strict=True):
            replica = device if own is None or rank == first or device.type == "cpu" else own
            found.append(str(replica) if here else "cpu")
        return found


def place(
    stack: ALStack,
    batch: tuple[Any, Any],
    spec: RunSpec,
    ranks: Ranks | None = None,
    *,
    before: Sequence[str] = (),
    always: bool = False,
) -> Placement:
    """Return where the layers of a stack go; their costs are measured with `batch`, in the precision of the run.

    A list in the config is obeyed, and every layer is measured on its own device. With "auto" all workers of the CPU
    share all layers; over GPUs the layers are spread so that the busiest one does least. The sequential schedule has
    one worker and nothing to expect of others, so it is only measured with `always`. Raises ConfigError where the
    layers do not fit the devices.

    `before`: the devices by name of the run that goes on. Which layers have replicas decides the last bits, and what
    their batch normalizations count; and where the network is cut, what "bf16" rounds. So "auto" leaves them there.
    """
    config = spec.config
    if ranks is not None:
        return _over_ranks(stack, batch, spec, ranks, before)
    devices = None if spec.devices is None else resolve(list(spec.devices), len(stack))
    gpus = _gpus(len(stack)) if devices is None and config.workers is None else []
    if config.schedule == "sequential":
        devices = devices or [*gpus[:1], CPU][:1] * len(stack)
        if not always:
            return Placement(devices, None)
    if devices is None and gpus:
        costs, devices = _spread(stack, batch, spec, gpus)
    else:
        devices = devices or [CPU] * len(stack)
        # The last layer hands nothing on.
        costs = _measure(stack, batch, spec, devices, [*devices[1:], devices[-1]])
    at_once = max(1.0, own_cores() / spec.threads)
    return Placement(devices, Plan(tuple(costs), tuple(devices), tuple(workers_of(spec, devices)), at_once))


def workers_of(spec: RunSpec, devices: Sequence[torch.device]) -> list[Member]:
    """Return who runs layers that are placed so; al-fm has a thread for every layer, and sequential the caller's."""
    config = spec.config
    if config.schedule == "sequential":
        return [Member("the main thread", CPU, tuple(range(len(devices))))]
    if config.schedule == "al-fm":
        return [
            Member(f"thread {layer + 1}", CPU if device.type == "cpu" else device, (layer,))
            for layer, device in enumerate(devices)
        ]
    try:
        return crew(devices, workers=config.workers, threads=spec.threads, streams_per_device=config.streams_per_device)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _over_ranks(
    stack: ALStack, batch: tuple[Any, Any], spec: RunSpec, ranks: Ranks, before: Sequence[str]
) -> Placement:
    """Return the processes of the layers: those of the config, or those by which the slowest part is fastest.

    Every layer is measured here, as if all processes had machines like this one.
    """
    given = [CPU if name == "auto" else torch.device(name) for name in spec.devices or ()]
    # A number of CPU workers takes the CPU, as in one process.
    own = [torch.device(name) if spec.config.workers is None else CPU for name in ranks.devices]
    measuring = own[:1] * len(stack)
    costs = _measure(stack, batch, spec, measuring, measuring)
    replicas = spec.config.stage_replicas
    if spec.ranks is not None:
        where = list(spec.ranks)
    elif _decides(spec) and _stages_of(before) == (replicas or [1] * spec.world):
        where = [ranks_named(name).start for name in before]
    else:
        known = stages_of(costs, spec, ranks.speed())
        where = over_ranks(**vars(known), world=spec.world, replicas=replicas)
    named = spec.devices or ("auto",) * len(stack)
    devices = [
        own[rank] if name == "auto" else given[layer]
        for layer, (rank, name) in enumerate(zip(where, named, strict=True))
    ]
    members = []
    firsts = list(dict.fromkeys(where))
    for rank in firsts:
        held = [layer for layer, other in enumerate(where) if other == rank]
        for member in workers_of(spec, [devices[layer] for layer in held]):
            layers = tuple(held[layer] for layer in member.layers)
            members.append(Member(f"rank{rank} {member.name}", member.device, layers))
    at_once = max(1.0, len(firsts) * core_share() / spec.threads)
    placed = Placement(devices, None, tuple(where), replicas=None if replicas is None else tuple(replicas))
    counts = () if replicas is None else placed.counts
    plan = Plan(tuple(costs), tuple(devices), tuple(members), at_once, tuple(where), counts)
    return replace(placed, plan=plan)


def _decides(spec: RunSpec) -> bool:
    """Tell whether the cut has a part in the numbers."""
    return spec.replicated or spec.config.wire == "bf16"


def _stages_of(devices: Sequence[str]) -> list[int]:
    """Return how many ranks each stage has in a list of devices by name."""
    return [len(ranks) for ranks in dict.fromkeys(map(ranks_named, devices))]


def stages_of(costs: Sequence[LayerCost], spec: RunSpec, speed: float) -> Stages:
    """Return the layers as they can be spread over ranks. `speed`: of a connection, in bytes per second."""
    return Stages(
        [cost.total for cost in costs],
        [cost.sent * WIRES[spec.config.wire] for cost in costs],
        [cost.gradients for cost in costs],
        spec.config.workers or max(1, own_cores() // spec.threads),
        speed,
    )


def _gpus(layers: int) -> list[torch.device]:
    """Return the GPUs of this machine that so many layers can use."""
    return [torch.device("cuda", index) for index in range(min(torch.cuda.device_count(), layers))]


def _spread(
    stack: ALStack, batch: tuple[Any, Any], spec: RunSpec, gpus: list[torch.device]
) -> tuple[list[LayerCost], list[torch.device]]:
    """Return the layers' costs, and the GPU of each.

    The GPUs of a machine are alike as far as "auto" goes: one measures for all, and two for every hand-over.
    """
    costs = _measure(stack, batch, spec, gpus[:1] * len(stack), (gpus[1:2] or gpus) * len(stack))
    try:
        where = assign(
            [cost.total for cost in costs],
            len(gpus),
            hand_over=[cost.hand_over for cost in costs],
            memory=[cost.bytes for cost in costs],
            capacity=capacities(gpus),
        )
    except PlacementError as error:
        raise ConfigError(f"al_gpu_list: {error}") from None
    return costs, [gpus[number] for number in where]


def set_layout(model: nn.Module, devices: Sequence[torch.device] = ()) -> None:
    """Give the weights of a model that is, or will be, on GPUs the memory layout that their tensor cores read."""
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    if on_gpu or any(device.type == "cuda" for device in devices):
        model.to(memory_format=torch.channels_last)  # on the CPU it is slower: benchmarks/NOTES.md


def _measure(
    stack: ALStack,
    batch: tuple[Any, Any],
    spec: RunSpec,
    devices: list[torch.device],
    receivers: list[torch.device],
) -> list[LayerCost]:
    """Measure each layer on its device, as the run will compute: in the same precision and memory layout."""
    set_layout(stack, devices)
    with mixed_precision(devices, spec.config.precision):
        return measure(stack, batch, threads=spec.threads, devices=devices, receivers=receivers)
