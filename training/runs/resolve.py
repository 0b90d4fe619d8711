"""From arguments, config and data to a `RunSpec`: what a method's run is, found out once.

What only needs the machine is asked before the data is loaded, because loading may download hundreds of megabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ALPackage import ALStack
from ALPackage.devices import available_devices
from ALPackage.devices import resolve as resolve_devices
from ALPackage.errors import PlacementError, UnfitLayersError
from ALPackage.ranks.averaging import refuse_inseparable
from ALPackage.ranks.chain import make_chain

from ..config.arguments import Arguments
from ..config.bp_parallel import STAGES, BPParallel, bp_parallel, check_bp_ranks
from ..config.launch import Launch, launched, split_rank
from ..config.load import check_ranks, device_list, layer_names, method_title
from ..config.objectives import own
from ..config.own_network import own_network
from ..config.schema import Config
from ..config.spec import RunSpec
from ..errors import ConfigError, UsageError
from .own_network import facts
from .provenance import versions
from .tasks import LoadedTask
from .threads import count_threads

#: The version of torch from which on its pipelines work over gloo.
PIPELINES_SINCE = (2, 8)


@dataclass(frozen=True)
class Machine:
    """Where a method runs on this machine."""

    layers: tuple[str, ...]
    """The names of the layers, first to last; none for a network of the user's that has not been built."""
    devices: tuple[str, ...] | None
    """One per layer; None for "auto". A layer of another process has the name of a device there."""
    world: int
    """How many processes there are."""
    ranks: tuple[int, ...] | None
    """The process of every layer, where the config says so."""
    threads: int
    """Intra-op threads of a worker, or of BP."""
    bp_parallel: BPParallel = "none"
    """How BP uses the processes."""


def find_machine(
    config: Config, model: str, method: str, asked: BPParallel | None = None, built: Sequence[str] | None = None
) -> Machine:
    """Return where a method runs. `asked`: what the command line says of BP's use of several processes.

    `built`: the names of the layers in a network of the user's. Before it has been built there are none, its function
    is looked up, and what has to do with the number of layers is not checked. Raises ConfigError, with the key, for a
    device that this machine does not have.
    """
    if (network := own_network(model)) is not None:
        network.load()
    # The registry knows the layers of its models without building them, which would take their memory.
    names = layer_names(model, method, config, built)
    layers = None if names is None else len(names)
    devices = device_list(config, model, method, built)
    launch = launched()
    ranks: tuple[int, ...] | None = None
    way: BPParallel = "none"
    if method != "bp":
        ranks = check_ranks(config, model, method, launch)
        _check_chain(layers, ranks, launch, config.stage_replicas)
    else:
        way = bp_parallel(asked, [method], launch)
        ranks = check_bp_ranks(way, config, devices, layers, launch)
        _check_torch(way)
    here = devices if devices != "auto" else []
    if ranks is not None:  # what another process has, it checks itself
        devices = [split_rank(device)[1] or "auto" for device in here]
        here = [device for device, rank in zip(devices, ranks, strict=True) if rank == launch.rank and device != "auto"]
    if here:
        _check_devices("bp_gpu_list" if method == "bp" else "al_gpu_list", here)
    threads = count_threads(config, method, alone=way == "none")
    return Machine(tuple(names or ()), None if devices == "auto" else tuple(devices), launch.world, ranks, threads, way)


def _check_chain(layers: int | None, ranks: tuple[int, ...] | None, launch: Launch, replicas: list[int] | None) -> None:
    """Raise ConfigError where the processes do not fit the layers, as far as their number is known."""
    if launch.world == 1 and replicas and sum(replicas) > 1:
        raise ConfigError(
            f"stage_replicas: got {replicas}; start that many processes with torchrun --nproc-per-node {sum(replicas)} "
            "..., or leave it out"
        )
    if layers is None:
        return
    try:
        make_chain(layers, ranks, launch.world, launch.rank, replicas)
    except PlacementError as error:
        key = "" if str(error).startswith("stage_replicas") else "al_gpu_list: "
        raise ConfigError(f"{key}{error}") from None


def check_replicas(specs: Iterable[RunSpec], task: LoadedTask) -> None:
    """Raise ConfigError, before any method trains, for one whose layers cannot have the replicas that are set.

    Which layers are to have some is known once they are placed: only what is true of all of them is refused here.
    """
    for spec in specs:
        model = task.build(spec.method) if spec.replicated else None
        if not isinstance(model, ALStack) or any(layer.row_separable for layer in model):
            continue
        try:
            refuse_inseparable(list(model.items()))
        except UnfitLayersError as error:
            others = f", or {spec.method} out of --method" if len(spec.methods) > 1 else ""
            raise ConfigError(
                f"stage_replicas: not with {method_title(spec.method)}: {error}; leave stage_replicas out{others}"
            ) from None


def _check_torch(way: BPParallel) -> None:
    """Raise UsageError where torch's pipelines are older than those that work over gloo."""
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if way in STAGES and version < PIPELINES_SINCE:
        needed = ".".join(map(str, PIPELINES_SINCE))
        raise UsageError(
            f"--bp-parallel {way}: needs torch {needed}, this is {torch.__version__}; install that, or give "
            "--bp-parallel ddp"
        )


def _check_devices(key: str, devices: Sequence[str]) -> None:
    """Raise ConfigError with every device of the list that cannot be used."""
    malformed: list[str] = []
    absent: list[str] = []
    for name in dict.fromkeys(devices):
        try:
            resolve_devices([name], 1)
        except PlacementError as error:
            # The cause is what torch has against the name; one that it understands has none.
            (absent if error.__cause__ is None else malformed).append(repr(name))
    problems = [_said(malformed, "is not a device name", "are not device names")] if malformed else []
    problems += [_said(absent, "is not there", "are not there")] if absent else []
    if problems:
        have = ", ".join(available_devices())
        raise ConfigError(f"{key}: {'; '.join(problems)}; this machine has {have}: give those, or --set {key}=auto")


def _said(names: list[str], of_one: str, of_many: str) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} {of_many}" if others else f"{last} {of_one}"


def make_spec(
    arguments: Arguments, config: Config, method: str, machine: Machine, task: LoadedTask, out: Path
) -> RunSpec:
    """Return the spec of one method of a command, whose data has been loaded."""
    # One timeline: of the first method that has workers to show.
    first_local = next((name for name in arguments.methods if name != "bp"), None)
    return RunSpec(
        task=arguments.task,
        dataset=arguments.dataset,
        model=arguments.model,
        method=method,
        methods=tuple(arguments.methods),
        config=config,
        resolved=resolved_config(config, method, task, arguments.limit_train),
        layers=machine.layers,
        devices=machine.devices,
        world=machine.world,
        bp_parallel=machine.bp_parallel,
        ranks=machine.ranks,
        threads=machine.threads,
        seeds=tuple(config.seed + turn for turn in range(1, arguments.turns + 1)),
        versions=versions(),
        out=out,
        trace=arguments.trace if method == first_local else None,
        network=facts(arguments.model, task.network),
    )


def resolved_config(config: Config, method: str, task: LoadedTask, limit_train: int | None) -> dict[str, Any]:
    """Return the config as a method uses it, with what was derived from the data, ready for JSON."""
    values = {**own(config.model_dump(mode="json"), method), **task.resolved, "limit_train": limit_train}
    # As a reader of the JSON gets it, so that a checkpoint's config can be compared with this one.
    resolved: dict[str, Any] = json.loads(json.dumps(values))
    return resolved
