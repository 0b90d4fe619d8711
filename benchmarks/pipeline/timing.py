"""The clock of every contestant, and how its processes meet and start together.

What is timed is {"start", "stop", "loss", "on_wire"}: times of a clock that all processes of the machine share, so that
the time of a contestant is the last stop minus the first start, and the bytes per batch that the process has sent.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

Job = dict[str, Any]
STALLED = timedelta(seconds=120)


def timed(step: Callable[[], Tensor | None], job: Job, together: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Warm up, and time the job's batches, one per call of `step`, which returns the loss where there is one."""

    def run(first: int, count: int) -> float | None:
        losses = [step() for _ in range(count)]
        return None if not losses or losses[-1] is None else finite(losses[-1])

    return timed_run(run, job, together)


def timed_run(
    run: Callable[[int, int], float | None], job: Job, together: Callable[[], Any] | None = None
) -> dict[str, Any]:
    """Warm up, and time the job's batches in one go: `run(first, count)` trains on so many from the `first` on.

    It returns the last loss where there is one.
    """
    run(0, job["warmup"])
    if together is not None:
        together()
    on_wire, start = sent_by_interface(), time.perf_counter()
    loss = run(job["warmup"], job["batches"])
    stop = time.perf_counter()
    on_wire = (sent_by_interface() - on_wire) // job["batches"]
    return {"start": start, "stop": stop, "loss": loss, "on_wire": on_wire}


def sent_by_interface() -> int:
    """Return the bytes that have left through the interface which gloo uses: on loopback, everybody's; 0 if unknown."""
    with suppress(OSError):
        for line in Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines():
            name, _, figures = line.partition(":")
            if name.strip() == os.environ.get("GLOO_SOCKET_IFNAME"):
                return int(figures.split()[8])
    return 0


def finite(loss: Tensor) -> float:
    """Return the last loss as a number; a contestant that diverged has not done the work."""
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of the last batch is {value}")
    return value


def per_batch(bytes_sent: dict[int, int], job: Job) -> dict[str, int]:
    """Return what this process has sent per batch by edge, from the bytes that it sent to each rank in all."""
    batches = job["warmup"] + job["batches"]
    return {f"rank{job['rank']} to rank{peer}": round(size / batches) for peer, size in bytes_sent.items()}


def start_together(job: Job) -> None:
    """Wait for the processes of other jobs, with which this one has nothing else to do."""
    if job["ranks"] > 1:
        store = dist.FileStore(job["meeting"], job["ranks"])  # type: ignore[attr-defined]
        store.set(f"ready {job['rank']}", "")
        store.wait([f"ready {rank}" for rank in range(job["ranks"])], STALLED)


def meet(job: Job) -> None:
    """Form a process group with the processes of the other jobs."""
    store = dist.FileStore(job["meeting"], job["ranks"])  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=job["rank"], world_size=job["ranks"], timeout=STALLED)
