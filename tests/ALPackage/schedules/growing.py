"""What the tests of a growing stack run, in one process and on every rank: stages with more and more layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ALPackage import ALStack, Snapshot, make_schedule
from ALPackage.randomness import enter_stream

from ..hooked import SEED, Batches, losses_of, rate, snapshot
from .on_ranks import is_of
from .on_replicas import data_for, stack_for
from .test_schedules import batches, build

#: Of each stage: its layers, its batches, and what the layers before the newest one take of the learning rate.
STAGES = [(1, 4, 1.0), (2, 3, 0.25), (3, 4, 0.0), (3, 3, 1.0)]


def begin(stack: ALStack, layers: int, factor: float) -> None:
    """Set what the layers do in a stage: the newest one trains as ever, the others by `factor`."""
    stack.train()
    for number, layer in enumerate(stack, start=1):
        layer.lr_share = factor if number < layers else 1.0
        layer.requires_grad_(layer.lr_share > 0)
        layer.train(layer.lr_share > 0)


def grow(schedule: Any, stack: ALStack, data: Batches, taken: Snapshot) -> dict[str, Any]:
    """Train all stages, predict after each, and take a snapshot in the middle of the frozen one."""
    losses, predictions, first = [], [], 0
    for layers, count, factor in STAGES:
        begin(stack, layers, factor)
        part: list[Any] = data[first : first + count]
        if factor == 0.0:
            part.insert(2, taken)
        losses += list(schedule.run(part, lr=rate, first=first, layers=layers))
        stack.eval()
        predictions.append(list(schedule.predict([x for x, _ in data[:2]], layers=layers)))
        first += count
    return {"losses": losses_of(losses), "predictions": predictions}


def by_hand(stack: ALStack, data: Batches) -> dict[str, Any]:
    """Do the same without any schedule: the slow twin."""
    losses: list[Any] = []
    predictions, step = [], 0
    for layers, count, factor in STAGES:
        stack.train()
        for _ in range(count):
            x, labels = data[step]
            y, of_batch = stack.target(labels), []
            for number, (name, layer) in enumerate(list(stack.items())[:layers], start=1):
                newest, lr = number == layers, rate(step)
                enter_stream(layer, SEED, name, step)
                if newest or factor:
                    share = 1.0 if newest else factor
                    layer.set_lr({k: v * share for k, v in lr.items()} if isinstance(lr, dict) else lr * share)
                    x, y = layer(x, y)
                    layer.backward_and_update()
                else:
                    layer.eval()
                    x, y = layer(x, y)
                    layer.discard()
                of_batch.append(layer.losses())
            losses.append(of_batch)
            step += 1
        stack.eval()
        with torch.no_grad():
            predictions.append([stack.inference_by_depth(x)[:layers] for x, _ in data[:2]])
    return {"losses": losses_of(losses), "predictions": predictions}


def on_rank(model: str, cut: list[int] | None) -> dict[str, Any]:
    """Train all stages over ranks; return what rank 0 has of it, and the state of this rank's layers."""
    stack, taken = build(model), Snapshot()
    found: dict[str, Any] = {}
    with make_schedule("distributed", stack, ranks=cut, threads=1, seed=SEED) as schedule:
        if schedule.leads:  # type: ignore[attr-defined]
            found = grow(schedule, stack, batches(model), taken)
            found["snapshot"] = taken.state
        else:
            schedule.serve()  # type: ignore[attr-defined]
        own = [name for name, one in zip(stack.names, schedule.ranks, strict=True) if one == dist.get_rank()]  # type: ignore[attr-defined]
    for name, layer in stack.items():
        if name not in own:
            layer.optimizer.param_groups.clear()
    state = {key: value for key, value in snapshot(stack).items() if not value.is_meta and is_of(key, own)}
    return {**found, "state": state}


def on_replica(replicas: list[int]) -> dict[str, Any]:
    """Train all stages where replicas divide the rows; return what rank 0 has of it."""
    stack, taken = stack_for("convolutions", "float64", normalized=False), Snapshot()
    ranks = [0, 0, 0] if len(replicas) == 1 else [0, replicas[0], replicas[0]]
    with make_schedule("distributed", stack, ranks=ranks, replicas=replicas, threads=1, seed=SEED) as schedule:
        if schedule.leads:  # type: ignore[attr-defined]
            return grow(schedule, stack, data_for("convolutions", "float64"), taken)
        schedule.serve()  # type: ignore[attr-defined]
    return {}


def on_replica_alone() -> dict[str, Any]:
    """Do the same in one process."""
    return by_hand(stack_for("convolutions", "float64", normalized=False), data_for("convolutions", "float64"))
