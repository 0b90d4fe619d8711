"""What the other processes of a command do: make the schedules that rank 0 makes, and serve in them."""

from __future__ import annotations

import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ALPackage import ALStack, RankError, StageError, make_schedule
from ALPackage.nan_guard import Guard
from ALPackage.ranks.link import PeerLost
from ALPackage.ranks.speed import link_speed
from ALPackage.schedules.distributed import Distributed
from models import registry
from utils import set_deterministic

from ..config.arguments import Command
from ..config.launch import note_cause
from ..config.schema import VisionConfig
from ..errors import UsageError
from .bp_ranks import follow_bp, load_for
from .exit_code import mistake_in
from .make_trainer import schedule_options
from .memory import out_of_memory
from .placement import Placement, set_layout
from .provenance import versions
from .ranks import Ranks
from .resolve import find_machine
from .shutdown import GracefulShutdown, Interrupted
from .tasks import LoadedTask, builder, shape_from_json

#: Arguments that may differ between the machines of a command, or that rank 0 alone heeds.
OF_A_MACHINE = ("config", "data_root", "out", "trace", "trackers", "tensorboard", "resume")


def about(command: Command) -> dict[str, Any]:
    """Return what has to be the same in every process of the command, by name.

    "mistake": what this process, which may be on a machine of its own, finds wrong with it.
    """
    arguments, config = command.arguments, command.config
    found: dict[str, Any] = {"mistake": None}
    try:
        for method in arguments.methods:
            find_machine(config, arguments.model, method, arguments.bp_parallel)
    except UsageError as error:
        found["mistake"] = str(error)
    found |= {name: value for name, value in vars(arguments).items() if name not in (*OF_A_MACHINE, "overrides")}
    found |= {key: value for key, value in config.model_dump(mode="json").items() if key != "outputpath"}
    return {**found, "versions": versions()}


def follow(command: Command, ranks: Ranks) -> int:
    """Do what rank 0 orders until it ends, and return its exit code."""
    code: int | None = None
    if torch.cuda.is_available():
        set_deterministic()  # as rank 0 does
    with GracefulShutdown(last=True) as shutdown:
        ranks.report_signals(shutdown)
        try:
            # A signal ends the run in rank 0, with a checkpoint; until then this part of the pipeline is needed.
            with shutdown.deferred():
                code = _follow(command, ranks)
        except Interrupted:
            if code is None:
                raise
    return code


def _follow(command: Command, ranks: Ranks) -> int:
    task: LoadedTask | None = None  # only some ways to train need it here
    for order in ranks.orders():
        if order["what"] == "end":
            if order["code"]:
                print(f"{ranks.who()}: {order['words']}", file=sys.stderr, flush=True)
                note_cause(order["words"])
            return int(order["code"])
        try:
            if order["what"] == "train":
                _serve(command, order, ranks)
            elif order["what"] == "train bp":
                follow_bp(command, order, ranks, task)
            elif order["what"] == "load":
                task = load_for(command, ranks)
            else:
                link_speed(list(range(ranks.launch.world)))
        except (StageError, RankError, PeerLost) as error:
            # Rank 0 knows of it, and says how the command ends.
            if isinstance(error, StageError) and error.rank is None and _fault(error):
                traceback.print_exception(error)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise UsageError(
                "there is too little memory to make the layers of this rank: give it fewer of them with al_gpu_list, "
                f"or lower {'width' if isinstance(command.config, VisionConfig) else 'x_hid'}"
            ) from None
    raise AssertionError("the last order is the end")


def _fault(error: StageError) -> bool:
    """Tell whether a layer has failed for what is no mistake of the user's: then the place in the program matters."""
    return mistake_in(error) is None and not out_of_memory(error.__cause__)


def _serve(command: Command, order: dict[str, Any], ranks: Ranks) -> None:
    """Make this rank's part of a schedule, and serve in it until rank 0 closes it."""
    config = command.config
    with _memory_for(command.arguments.model, order["method"]):
        stack = builder(config, command.arguments.model, shape_from_json(order["shape"]))(order["method"])
    replicas = None if config.stage_replicas is None else tuple(config.stage_replicas)
    devices = [torch.device(name) for name in order["devices"]]
    placement = Placement(devices, None, tuple(order["ranks"]), replicas=replicas)
    assert isinstance(stack, ALStack)
    rank = ranks.launch.rank
    ranks.describe(placement.layers_of(rank, stack.names))
    set_layout(stack, stack.set_device(placement.here(rank, ranks.devices[rank])))
    if config.on_nan == "skip":
        for layer in stack:
            layer.guard = Guard()
    options = schedule_options("distributed", config, placement.ranks)
    with make_schedule("distributed", stack, threads=order["threads"], seed=order["seed"], **options) as schedule:
        assert isinstance(schedule, Distributed)
        schedule.serve()


def _memory_for(model: str, method: str) -> AbstractContextManager[Any]:
    """Return what a network is built within: the device "meta" if it can be, as rank 0 sends this rank's weights."""
    # On "meta" torch 2.4 refuses the fused AdamW that it has on the CPU; the last bits of the plain one are others.
    recent = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5)
    able = recent and registry.model(model).on_meta and registry.objective(method).on_meta
    return torch.device("meta") if able else nullcontext()
