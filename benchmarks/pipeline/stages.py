"""Pipelines of BP over processes: the schedules of torch.distributed.pipelining, and asynchronous BP."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)

from models import adamw

from .delayed import train_delayed
from .search import owners
from .timing import Job, meet, per_batch, timed
from .workload import LR, Part, arguments, bp_layers, make_batches

#: By name; those of the second kind take all stages of a process, the others its only one.
SINGLE: dict[str, Any] = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
SEVERAL: dict[str, Any] = {
    "interleaved": ScheduleInterleaved1F1B,
    "zero-bubble": ScheduleInterleavedZeroBubble,
    "zero-bubble-v": ScheduleZBVZeroBubble,
}


def pipeline_stages(job: Job) -> dict[str, Any]:
    """Train the part of the BP form that is this process's."""
    meet(job)
    result = _train(job)
    dist.destroy_process_group()
    return result


def search_stages(job: Job) -> dict[str, Any]:
    """Do the same briefly for a list of cuts and micro-batch counts."""
    meet(job)
    results = [_train({**job, **trial}) for trial in job["trials"]]
    dist.destroy_process_group()
    return {"trials": results}


class CountedStage(PipelineStage):
    """A stage that knows how many bytes it has given to torch to send, by rank."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sent: dict[int, int] = {}

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Return the sends of a micro-batch's outputs."""
        return self._counted(super().get_fwd_send_ops(fwd_chunk_id))

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Return the sends of the gradients of a micro-batch's inputs."""
        return self._counted(super().get_bwd_send_ops(bwd_chunk_id))

    def _counted(self, operations: list[dist.P2POp]) -> list[dist.P2POp]:
        for one in operations:
            self.sent[one.peer] = self.sent.get(one.peer, 0) + one.tensor.numel() * one.tensor.element_size()
        return operations


def _train(job: Job) -> dict[str, Any]:
    """Train with `cut`, the layers of every stage."""
    if job["schedule"] == "delayed":
        return train_delayed(job)
    rank, cut, name = job["rank"], job["cut"], job["schedule"]
    layers = [layer for _, layer in bp_layers(job["model"], job["size"])]
    own = [stage for stage, owner in enumerate(owners(name, len(cut), job["ranks"])) if owner == rank]
    parts = [Part(layers[sum(cut[:stage]) : sum(cut[: stage + 1])]) for stage in own]
    stages = [CountedStage(part, one, len(cut), torch.device("cpu")) for part, one in zip(parts, own, strict=True)]
    optimizer = adamw([weight for part in parts for weight in part.parameters()], lr=LR, weight_decay=0.0)
    # The mean over micro-batches of their mean losses is the mean over the batch; the schedule scales the gradients.
    schedule: Any
    if name in SEVERAL:
        schedule = SEVERAL[name](stages, job["micro"], loss_fn=F.cross_entropy)
    else:
        schedule = SINGLE[name](stages[0], job["micro"], loss_fn=F.cross_entropy)
    batches = cycle(make_batches(job["model"], job["size"]))
    losses: list[Tensor] = []

    def step() -> Tensor | None:
        x, labels = next(batches)
        features, others = arguments(x)
        losses.clear()
        inputs = (features,) if rank == 0 else ()
        targets = {"target": labels, "losses": losses} if len(cut) - 1 in own else {}
        schedule.step(*inputs, **targets, **others, return_outputs=False)  # nobody reads the logits
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss.detach() for loss in losses]).mean() if losses else None

    result = timed(step, job, dist.barrier)
    sent: dict[int, int] = {}
    for stage in stages:
        for peer, size in stage.sent.items():
            sent[peer] = sent.get(peer, 0) + size
    return {**result, "sent": per_batch(sent, job)}
