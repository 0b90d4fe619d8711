"""What runs inside a measured process: each contestant warms up, then trains a number of batches against the clock.

Every function takes a job (a dict from JSON) and returns what `timing` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ALPackage import Schedule, make_schedule, set_device
from ALPackage.ranks.speed import link_speed
from ALPackage.schedules.distributed import Distributed
from models import adamw

from .timing import Job, finite, meet, start_together, timed, timed_run
from .workload import LR, Part, al_model, arguments, bp_layers, make_batches


def back_propagation(job: Job) -> dict[str, Any]:
    """Train the BP form in one process."""
    model = Part([layer for _, layer in bp_layers(job["model"], job["size"])])
    return timed(_bp_step(model, make_batches(job["model"], job["size"])), job)


def data_parallel(job: Job) -> dict[str, Any]:
    """Train one of the copies of the BP form, on its share of every batch, in DistributedDataParallel."""
    meet(job)
    # Statistics of batch normalization stay local, which saves a message per batch; gradients are not copied.
    model = DistributedDataParallel(
        Part([layer for _, layer in bp_layers(job["model"], job["size"])]),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    batches = make_batches(job["model"], job["size"], share=job["ranks"], part=job["rank"])
    result = timed(_bp_step(model, batches), job, dist.barrier)
    dist.destroy_process_group()
    return {**result, "sent": _in_a_ring(model, job)}


def _in_a_ring(model: torch.nn.Module, job: Job) -> dict[str, int]:
    """Return what an all-reduce of the gradients sends from each process to the next: 2 (R - 1) / R of their bytes."""
    size = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    rank, ranks = job["rank"], job["ranks"]
    return {f"rank{rank} to rank{(rank + 1) % ranks}": round(2 * (ranks - 1) / ranks * size)}


def _bp_step(model: torch.nn.Module, batches: list[Any]) -> Callable[[], Tensor]:
    optimizer = adamw(model.parameters(), lr=LR, weight_decay=0.0)
    following = cycle(batches)

    def step() -> Tensor:
        x, labels = next(following)
        features, others = arguments(x)
        loss = F.cross_entropy(model(features, **others), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def associated_learning(job: Job) -> dict[str, Any]:
    """Train the AL form under a schedule; the clock covers the filling and the draining of the pipeline.

    Where there are several such processes, their clocks start together.
    """
    batches = make_batches(job["model"], job["size"])
    stack = al_model(job["model"], job["size"])
    set_device(stack, job["placement"] or ["cpu"] * len(stack))
    with make_schedule(job["schedule"], stack, threads=1, seed=0, **job["options"]) as schedule:
        return _timed_schedule(schedule, batches, job, partial(start_together, job))


def _timed_schedule(
    schedule: Schedule, batches: list[Any], job: Job, together: Callable[[], Any] | None = None
) -> dict[str, Any]:
    worked: list[float] = []

    def ready() -> None:
        if together is not None:
            together()
        worked.append(_worked(schedule))

    def run(first: int, count: int) -> float:
        losses = []
        for losses in schedule.run(islice(cycle(batches), count), first=first):  # noqa: B007
            pass
        return finite(losses[-1]["assoc"])

    result = timed_run(run, job, ready)
    return {**result, "busy": _worked(schedule) - worked[0]}


def _worked(schedule: Schedule) -> float:
    return sum(usage.busy for usage in schedule.usage())


def over_ranks(job: Job) -> dict[str, Any]:
    """Train the AL form in this process and others, each with neighboring layers, or with its rows of every batch.

    The clock is that of rank 0, which feeds the pipeline and gets the losses.
    """
    meet(job)
    stack = al_model(job["model"], job["size"])
    found: dict[str, Any] = {"start": math.inf, "stop": -math.inf}
    options = {
        "ranks": job["ranks_of_layers"],
        "replicas": job.get("replicas"),
        "wire": job.get("wire", "fp32"),
        "workers": 1,
        "threads": 1,
        "seed": 0,
    }
    with make_schedule("distributed", stack, **options) as schedule:
        assert isinstance(schedule, Distributed)
        if schedule.leads:
            found = _timed_schedule(schedule, make_batches(job["model"], job["size"]), job)
            found["sent"] = {
                f"rank{one.rank} to {to}": size for one in schedule.reports() for to, size in one.sent.items()
            }
        else:
            schedule.serve()
    dist.destroy_process_group()
    return found


def measure_link(job: Job) -> dict[str, Any]:
    """Return the bytes per second from this process to the next, as the program itself measures them."""
    meet(job)
    speed = link_speed(list(range(job["ranks"])))
    dist.destroy_process_group()
    return {"bytes_per_s": speed}


def search_cuts(job: Job) -> dict[str, Any]:
    """Train the AL form briefly under a list of placements."""
    found = [associated_learning({**job, **trial}) for trial in job["trials"]]
    return {"trials": found}
