"""What runs inside a measured process: each contestant warms up, then trains a number of batches against the clock.

Every function takes a job (a dict from JSON) and returns {"start", "stop", "loss"}: times of a clock that all
processes of the machine share, so that the time of a contestant is the last stop minus the first start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.nn.parallel import DistributedDataParallel

from ALPackage import Schedule, make_schedule, set_device
from ALPackage.schedules.distributed import Distributed
from models import adamw

from .workload import LR, Part, al_model, arguments, bp_layers, make_batches

Job = dict[str, Any]
STALLED = timedelta(seconds=120)


def back_propagation(job: Job) -> dict[str, Any]:
    """Train the BP form in one process."""
    model = Part([layer for _, layer in bp_layers(job["model"], job["size"])])
    return _timed(_bp_step(model, make_batches(job["model"], job["size"])), job)


def data_parallel(job: Job) -> dict[str, Any]:
    """Train one of the copies of the BP form, on its share of every batch, in DistributedDataParallel."""
    _meet(job)
    # Statistics of batch normalization stay local, which saves a message per batch; gradients are not copied.
    model = DistributedDataParallel(
        Part([layer for _, layer in bp_layers(job["model"], job["size"])]),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    batches = make_batches(job["model"], job["size"], share=job["ranks"], part=job["rank"])
    result = _timed(_bp_step(model, batches), job, dist.barrier)
    dist.destroy_process_group()
    return result


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
        return _timed_run(schedule, batches, job, partial(_start_together, job))


def _timed_run(
    schedule: Schedule, batches: list[Any], job: Job, together: Callable[[], Any] | None = None
) -> dict[str, Any]:
    for _ in schedule.run(islice(cycle(batches), job["warmup"])):
        pass
    if together is not None:
        together()
    losses = []
    worked = sum(usage.busy for usage in schedule.usage())
    start = time.perf_counter()
    for losses in schedule.run(islice(cycle(batches), job["batches"]), first=job["warmup"]):  # noqa: B007
        pass
    stop = time.perf_counter()
    worked = sum(usage.busy for usage in schedule.usage()) - worked
    return {"start": start, "stop": stop, "busy": worked, "loss": _finite(losses[-1]["assoc"])}


def over_ranks(job: Job) -> dict[str, Any]:
    """Train the AL form in this process and others, each with neighboring layers and one worker.

    The clock is that of rank 0, which feeds the pipeline and gets the losses.
    """
    _meet(job)
    stack = al_model(job["model"], job["size"])
    found: dict[str, Any] = {"start": math.inf, "stop": -math.inf}
    with make_schedule("distributed", stack, ranks=job["ranks_of_layers"], workers=1, threads=1, seed=0) as schedule:
        assert isinstance(schedule, Distributed)
        if schedule.leads:
            found = _timed_run(schedule, make_batches(job["model"], job["size"]), job)
            found["sent"] = {
                f"rank{one.rank} to {to}": size for one in schedule.reports() for to, size in one.sent.items()
            }
        else:
            schedule.serve()
    dist.destroy_process_group()
    return found


def search_cuts(job: Job) -> dict[str, Any]:
    """Train the AL form briefly under a list of placements."""
    found = [associated_learning({**job, **trial}) for trial in job["trials"]]
    return {"trials": found}


def pipeline_stages(job: Job) -> dict[str, Any]:
    """Train the part of the BP form that is this process's under a schedule of torch.distributed.pipelining."""
    _meet(job)
    result = _stages(job)
    dist.destroy_process_group()
    return result


def search_stages(job: Job) -> dict[str, Any]:
    """Do the same briefly for a list of cuts and micro-batch counts."""
    _meet(job)
    results = [_stages({**job, **trial}) for trial in job["trials"]]
    dist.destroy_process_group()
    return {"trials": results}


def _stages(job: Job) -> dict[str, Any]:
    """Train with `cut`, the layers of every stage: rank r has the stages r, r + ranks, .. in turn."""
    rank, ranks, cut = job["rank"], job["ranks"], job["cut"]
    layers = [layer for _, layer in bp_layers(job["model"], job["size"])]
    own = range(rank, len(cut), ranks)
    parts = [Part(layers[sum(cut[:stage]) : sum(cut[: stage + 1])]) for stage in own]
    stages = [PipelineStage(part, one, len(cut), torch.device("cpu")) for part, one in zip(parts, own, strict=True)]
    optimizer = adamw([weight for part in parts for weight in part.parameters()], lr=LR, weight_decay=0.0)
    # The mean over micro-batches of their mean losses is the mean over the batch; the schedule scales the gradients.
    schedule: Any
    if job["schedule"] == "interleaved":
        schedule = ScheduleInterleaved1F1B(stages, job["micro"], loss_fn=F.cross_entropy)  # type: ignore[arg-type]
    else:
        kind = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[job["schedule"]]
        schedule = kind(stages[0], job["micro"], loss_fn=F.cross_entropy)
    batches = cycle(make_batches(job["model"], job["size"]))
    losses: list[Tensor] = []

    def step() -> Tensor | None:
        x, labels = next(batches)
        features, others = arguments(x)
        losses.clear()
        inputs = (features,) if rank == 0 else ()
        targets = {"target": labels, "losses": losses} if own[-1] == len(cut) - 1 else {}
        schedule.step(*inputs, **targets, **others, return_outputs=False)  # nobody reads the logits
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss.detach() for loss in losses]).mean() if losses else None

    return _timed(step, job, dist.barrier)


def _timed(step: Callable[[], Tensor | None], job: Job, together: Callable[[], Any] | None = None) -> dict[str, Any]:
    for _ in range(job["warmup"]):
        step()
    loss = None
    if together is not None:
        together()
    start = time.perf_counter()
    for _ in range(job["batches"]):
        loss = step()
    return {"start": start, "stop": time.perf_counter(), "loss": None if loss is None else _finite(loss)}


def _finite(loss: Tensor) -> float:
    """Return the last loss as a number; a contestant that diverged has not done the work."""
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of the last batch is {value}")
    return value


def _start_together(job: Job) -> None:
    if job["ranks"] > 1:
        store = dist.FileStore(job["meeting"], job["ranks"])
        store.set(f"ready {job['rank']}", "")
        store.wait([f"ready {rank}" for rank in range(job["ranks"])], STALLED)


def _meet(job: Job) -> None:
    store = dist.FileStore(job["meeting"], job["ranks"])
    dist.init_process_group("gloo", store=store, rank=job["rank"], world_size=job["ranks"], timeout=STALLED)
