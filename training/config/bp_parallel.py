"""How BP uses the processes of a command. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import ConfigError, UsageError
from .launch import Launch, ranks_of, split_rank
from .schema import CommonConfig, Method

BPParallel = Literal["ddp", "gpipe", "1f1b", "interleaved", "zb", "none"]
"""`ddp`: every process has the whole network and a part of every batch; `none`: process 0 trains alone; the others are
pipelines of micro-batches, in which every process has some of the layers."""

TITLES: dict[BPParallel, str] = {
    "ddp": "DDP",
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "interleaved 1F1B",
    "zb": "zero bubble",
}
"""How messages call a way to use several processes."""


def bp_parallel(
    asked: BPParallel | None, methods: Sequence[Method], config: CommonConfig, launch: Launch
) -> BPParallel:
    """Return how BP uses the processes; `asked`: what the command line says, None where it says nothing.

    Raises UsageError or ConfigError where that does not go with the command.
    """
    if asked is not None and "bp" not in methods:
        raise UsageError(f"--bp-parallel says how BP trains, and --method {','.join(methods)} has no BP: leave one out")
    if launch.world == 1:
        if asked not in (None, "none"):
            raise UsageError(
                f"--bp-parallel {asked}: needs several processes; start them with torchrun --nproc-per-node 2 and the "
                "command without python, or leave --bp-parallel out"
            )
        return "none"
    way = asked or "ddp"
    if "bp" in methods and way != "none" and getattr(config, "compile", False):
        raise ConfigError(
            f"compile: not with BP over several processes ({TITLES[way]}); leave compile at false, or give "
            "--bp-parallel none"
        )
    return way


def check_bp_ranks(way: BPParallel, devices: Literal["auto"] | list[str], launch: Launch) -> tuple[int, ...] | None:
    """Return the process of every BP layer that `bp_gpu_list` names, None where it names none.

    Raises ConfigError for a list that does not go with the way in which BP uses the processes.
    """
    if devices == "auto":
        return None
    if way == "ddp":
        named = [one for one in devices if split_rank(one)[0] is not None]
        if named:
            raise ConfigError(
                f"bp_gpu_list: {named[0]!r} names a process, and with DDP every process has all layers; give devices "
                'alone, "auto", or a pipeline such as --bp-parallel 1f1b'
            )
        return None
    return None if way == "none" and launch.world > 1 else ranks_of("bp_gpu_list", devices, launch)
