"""How BP uses the processes of a command. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
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

STAGES: dict[BPParallel, int] = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "zb": 2}
"""The pipelines, and how many stages of neighboring layers every process has."""


def bp_parallel(asked: BPParallel | None, methods: Sequence[Method], launch: Launch) -> BPParallel:
    """Return how BP uses the processes; `asked`: what the command line says, None where it says nothing.

    Raises UsageError where that does not go with the command.
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
    return asked or "ddp"


def check_bp_ranks(
    way: BPParallel, config: CommonConfig, devices: Literal["auto"] | list[str], layers: int | None, launch: Launch
) -> tuple[int, ...] | None:
    """Return the process of every BP layer that `devices`, the `bp_gpu_list`, names; None where it names none.

    `layers`: how many the model has with BP, if that is known.

    Raises ConfigError where the config does not go with the way in which BP uses the processes.
    """
    if way != "none" and getattr(config, "compile", False):
        raise ConfigError(
            f"compile: not with BP over several processes ({TITLES[way]}); leave compile at false, or give "
            "--bp-parallel none"
        )
    stages = STAGES.get(way, 0) * launch.world
    if layers is not None and stages > layers:
        raise ConfigError(
            f"--bp-parallel {way}: {launch.world} processes need at least {stages} layers, {STAGES[way]} each, and the "
            f"model has {layers} with BP; start at most {layers // STAGES[way]} processes, or give --bp-parallel ddp"
        )
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
    if way == "none" and launch.world > 1:
        return None
    ranks = ranks_of("bp_gpu_list", devices, launch)
    in_turn = [stage % launch.world for stage in range(stages)]
    if ranks is not None and [rank for rank, _ in groupby(ranks)] != in_turn:
        expected = ", ".join(f"rank{rank}" for rank in in_turn)
        raise ConfigError(
            f"bp_gpu_list: with {TITLES[way]} over {launch.world} processes the layers are in {stages} stages of "
            f'neighbors, in {expected}; give the layers in that order, or "auto"'
        )
    return ranks
