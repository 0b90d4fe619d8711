"""Run a function on several ranks of one machine: for tests of layers and schedules over processes."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

#: Seconds that the ranks which go on have after one has failed, to say what they have seen.
GRACE = 10.0


def run_distributed(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout: float = 120.0, threads: int = 1
) -> list[Any]:
    """Call `function(*arguments)` in `world_size` new processes that form a process group, and return what they return.

    The group uses gloo and meets at a file, so that no port is needed. `torch.distributed.get_rank()` says which rank
    it is.

    Args:
        function: A function of a module, because the processes import it.
        world_size: How many ranks.
        arguments: Objects that can be pickled; every rank gets the same.
        timeout: Seconds for all of it; the processes are ended then.
        threads: Intra-op threads of each process.

    Returns:
        The results by rank, which must be picklable.

    Raises:
        torch.multiprocessing.ProcessRaisedException: If the function raised in a rank, with its traceback.
        torch.multiprocessing.ProcessExitedException: If a process died.
        TimeoutError: If it took too long.

    Example:
        >>> run_distributed(torch.distributed.get_rank, 2)  # doctest: +SKIP
        [0, 1]
    """
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(  # type: ignore[no-untyped-call]
            _rank,
            (world_size, folder, function, arguments, threads),
            nprocs=world_size,
            join=False,
            start_method="spawn",
        )
        assert processes is not None
        try:
            while not processes.join(timeout=max(0.1, deadline - time.monotonic()), grace_period=GRACE):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"run_distributed: not done after {timeout:.0f} s")
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.kill()
        return [pickle.loads(_result(folder, rank).read_bytes()) for rank in range(world_size)]


def _rank(
    rank: int, world_size: int, folder: str, function: Callable[..., Any], arguments: Sequence[Any], threads: int
) -> None:
    torch.set_num_threads(threads)
    store = dist.FileStore(str(Path(folder) / "meeting"), world_size)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    try:
        _result(folder, rank).write_bytes(pickle.dumps(function(*arguments)))
    finally:
        dist.destroy_process_group()


def _result(folder: str, rank: int) -> Path:
    return Path(folder) / f"result {rank}"
