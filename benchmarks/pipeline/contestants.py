"""What runs inside a measured process: each contestant warms up, then trains a number of batches against the clock.

Every function takes a job (a dict from JSON) and returns {"start", "stop", "loss"}: times of a clock that all
processes of the machine share, so that the time of a contestant is the last stop minus the first start.
"""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel

from ALPackage import AL, make_schedule
from models import adamw

from .workload import BATCH, LR, WEIGHT_DECAY, Part, al_model, arguments, bp_layers, make_batches

Job = dict[str, Any]
STALLED = timedelta(seconds=120)


def back_propagation(job: Job) -> dict[str, Any]:
    """Train the BP form on one core."""
    batches = cycle(make_batches(job["model"], job["quick"]))
    model = Part([layer for _, layer in bp_layers(job["model"], job["quick"])])
    optimizer = adamw(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)

    def step() -> Tensor:
        x, labels = next(batches)
        features, others = arguments(x)
        loss = F.cross_entropy(model(features, **others), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return _timed(step, job["warmup"], job["batches"])


def associated_learning(job: Job) -> dict[str, Any]:
    """Train the AL form under a schedule; the clock covers the filling and the draining of the pipeline.

    `stages`: the layers of each device, whose work is tied to the device's core; None: every thread may use every core.
    """
    batches = make_batches(job["model"], job["quick"])
    stack = al_model(job["model"], job["quick"])
    if job["stages"] is not None:
        owners = [core for core, size in zip(job["cores"], job["stages"], strict=True) for _ in range(size)]
        for layer, core in zip(stack, owners, strict=True):
            _tie(layer, core)
    with make_schedule(job["schedule"], stack, threads=1, seed=0, **job["options"]) as schedule:
        for _ in schedule.run(islice(cycle(batches), job["warmup"])):
            pass
        os.sched_setaffinity(0, job["cores"])  # the check of the layers, on this thread, has moved it
        losses = []
        start = time.perf_counter()
        for losses in schedule.run(islice(cycle(batches), job["batches"]), first=job["warmup"]):  # noqa: B007
            pass
        stop = time.perf_counter()
    return {"start": start, "stop": stop, "loss": _finite(losses[-1]["assoc"])}


def _tie(layer: AL, core: int) -> None:
    """Have the layer's work done on `core`, whichever thread asks for it."""
    backward = layer.backward_and_update

    def move_there(*_: Any) -> None:
        os.sched_setaffinity(0, {core})  # of the calling thread

    def backward_there() -> None:
        move_there()
        backward()

    # A hook, because a `forward` set here would still be this layer's on the copies that are checked before training.
    layer.register_forward_pre_hook(move_there)
    layer.backward_and_update = backward_there  # type: ignore[method-assign]


def data_parallel(job: Job) -> dict[str, Any]:
    """Train one of the copies of the BP form, on its share of every batch, in DistributedDataParallel."""
    _meet(job)
    share = BATCH // job["ranks"]
    batches = cycle(make_batches(job["model"], job["quick"], share, job["rank"]))
    # Statistics of batch normalization stay local, which saves a message per batch; gradients are not copied.
    model = DistributedDataParallel(
        Part([layer for _, layer in bp_layers(job["model"], job["quick"])]),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    optimizer = adamw(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)

    def step() -> Tensor:
        x, labels = next(batches)
        features, others = arguments(x)
        loss = F.cross_entropy(model(features, **others), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    result = _timed(step, job["warmup"], job["batches"], dist.barrier)
    dist.destroy_process_group()
    return result


def pipeline_stages(job: Job) -> dict[str, Any]:
    """Train one stage of the BP form under a schedule of torch.distributed.pipelining."""
    _meet(job)
    result = _stage(job, job["trial"])
    dist.destroy_process_group()
    return result


def search_stages(job: Job) -> dict[str, Any]:
    """Do the same briefly for a list of schedules, cuts and micro-batch counts."""
    _meet(job)
    results = [_stage(job, trial) for trial in job["trials"]]
    dist.destroy_process_group()
    return {"trials": results}


def _stage(job: Job, trial: dict[str, Any]) -> dict[str, Any]:
    rank, first = job["rank"], sum(trial["cut"][: job["rank"]])
    batches = cycle(make_batches(job["model"], job["quick"]))
    layers = bp_layers(job["model"], job["quick"])[first : first + trial["cut"][rank]]
    part = Part([layer for _, layer in layers])
    optimizer = adamw(part.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    stage = PipelineStage(part, rank, job["ranks"], torch.device("cpu"))
    kind = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[trial["schedule"]]
    # The mean over micro-batches of their mean losses is the mean over the batch; the schedule scales the gradients.
    schedule = kind(stage, trial["micro"], loss_fn=F.cross_entropy)
    options: dict[str, Any] = {}
    if "return_outputs" in inspect.signature(schedule.step).parameters:
        options["return_outputs"] = False  # nobody reads the logits: spare their concatenation
    losses: list[Tensor] = []

    def step() -> Tensor | None:
        x, labels = next(batches)
        features, others = arguments(x)
        if rank == 0:
            schedule.step(features, **others, **options)
        else:
            losses.clear()
            schedule.step(target=labels, losses=losses, **others, **options)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss.detach() for loss in losses]).mean() if losses else None

    return _timed(step, trial.get("warmup", job["warmup"]), trial.get("batches", job["batches"]), dist.barrier)


def _timed(
    step: Callable[[], Tensor | None], warmup: int, batches: int, together: Callable[[], Any] | None = None
) -> dict[str, Any]:
    for _ in range(warmup):
        step()
    loss = None
    if together is not None:
        together()
    start = time.perf_counter()
    for _ in range(batches):
        loss = step()
    return {"start": start, "stop": time.perf_counter(), "loss": None if loss is None else _finite(loss)}


def _finite(loss: Tensor) -> float:
    """Return the last loss as a number; a contestant that diverged has not done the work."""
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of the last batch is {value}")
    return value


def _meet(job: Job) -> None:
    store = dist.FileStore(job["meeting"], job["ranks"])
    dist.init_process_group("gloo", store=store, rank=job["rank"], world_size=job["ranks"], timeout=STALLED)
