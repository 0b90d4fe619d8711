"""What torchrun tells a process about itself, and the names of ranks in device lists. Nothing here needs torch."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ..errors import ConfigError, UsageError


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this one is, and which on its machine; one process that nobody launched is rank 0."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the data, the results and the word."""
        return self.rank == 0


def launched() -> Launch:
    """Return what this process was launched as. Raises UsageError for variables that do not fit together."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [os.environ.get(name, "0") for name in names]
    if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
        told = ", ".join(f"{name}={text}" for name, text in zip(names, given, strict=True))
        raise UsageError(f"{told}: these are set by torchrun; start the command with it, or leave them unset")
    return Launch(*map(int, given))


def torchrun_began() -> datetime | None:
    """Return when the torchrun that started this process began; None without one, or where that is unknown.

    What it starts again after a process died belongs to the same run as what it started first.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    with suppress(OSError, ValueError, IndexError, StopIteration):  # not Linux
        ticks = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        seconds = int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(seconds - 1.0, timezone.utc)  # the time of booting is in whole seconds
    return None


def note_cause(words: str) -> None:
    """Have the summary that torchrun prints at the end say why this process has failed; the first cause stays.

    It is what `torch.distributed.elastic.multiprocessing.errors.record` writes, but for the stack, which stderr has.
    """
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        about = {"message": " ".join(words.splitlines()), "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError), open(path, "x", encoding="utf-8") as file:
            json.dump({"message": about}, file)


def prepare_launch() -> None:
    """Set up the environment of a process that torchrun has started; to be called before torch is loaded."""
    forget_default_threads()
    # A store or a peer that is gone is told in one line; torch would add its own, and a stack.
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


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
        found = [(rank, one) for one, rank in zip(devices, named, strict=True) if rank is not None]
        if found:
            most, one = max(found)
            raise ConfigError(
                f"{key}: {one!r} is a process of a run that torchrun starts: torchrun --nproc-per-node {most + 1} ..."
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
