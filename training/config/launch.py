"""What torchrun tells a process about itself, and the names of ranks in device lists. Nothing here needs torch."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, UsageError


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this one is, and which on its machine; one process that nobody launched is rank 0."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    restarts: int = 0
    """How often torchrun has started the command again, after a process died."""

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the data, the results and the word."""
        return self.rank == 0


def launched() -> Launch:
    """Return what this process was launched as. Raises UsageError for variables that do not fit together."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    given = [os.environ.get(name, "0") for name in names]
    if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
        told = ", ".join(f"{name}={text}" for name, text in zip(names, given, strict=True))
        raise UsageError(f"{told}: these are set by torchrun; start the command with it, or leave them unset")
    return Launch(*map(int, given))


def prepare_launch() -> None:
    """Set up the environment of a process that torchrun has started; to be called before torch is loaded."""
    forget_default_threads()
    # A store or a peer that is gone is told in one line; torch would add its stack.
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def forget_default_threads() -> None:
    """Drop the OMP_NUM_THREADS=1 that torchrun sets where the user did not; to be called before torch is loaded.

    It would override `threads`, and let BP have one core.
    """
    launched_so = os.environ.get("OMP_NUM_THREADS") == "1" and "TORCHELASTIC_RUN_ID" in os.environ
    if launched_so and not of_parent("OMP_NUM_THREADS"):
        del os.environ["OMP_NUM_THREADS"]


def of_parent(name: str) -> bool:
    """Tell whether the parent process, such as torchrun, was started with a variable; False where that is unknown."""
    with suppress(OSError):  # not Linux
        return f"{name}=".encode() in Path(f"/proc/{os.getppid()}/environ").read_bytes()
    return False


def split_rank(device: str) -> tuple[int | None, str | None]:
    """Return the rank and the device that an entry of a device list names, such as "rank1" or "rank1:cuda:0"."""
    found = re.fullmatch(r"rank(\d+)(?::(.+))?", device)
    return (int(found[1]), found[2]) if found else (None, device)


def ranks_of(key: str, devices: list[str], launch: Launch) -> tuple[int, ...] | None:
    """Return the rank of every layer that a device list names; None where there is one process.

    Raises ConfigError for a list that does not go with how the command was launched.
    """
    named = [split_rank(device)[0] for device in devices]
    if launch.world == 1:
        if any(named):
            raise ConfigError(
                f"{key}: {next(one for one, rank in zip(devices, named, strict=True) if rank)!r} is a process of a run "
                f"that torchrun starts: torchrun --nproc-per-node {max(rank or 0 for rank in named) + 1} ..."
            )
        return None
    ranks = [rank for rank in named if rank is not None]
    if len(ranks) < len(devices):
        plain = next(one for one, rank in zip(devices, named, strict=True) if rank is None)
        raise ConfigError(
            f'{key}: {plain!r} names no rank; with several processes write "rank0" or "rank1:cuda:0" for every layer, '
            'or "auto"'
        )
    return tuple(ranks)
