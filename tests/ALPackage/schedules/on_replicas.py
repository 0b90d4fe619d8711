"""What the tests of replicas run on every rank: functions that a new process can import."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ALPackage import ALStack, Snapshot, make_schedule
from ALPackage.objectives.classification import ClassifierAL

from ..hooked import SEED, Batches, losses_of
from .test_schedules import batches, build

#: Of every epoch, the sizes of its batches: divided unevenly by 2 and by 3, and one with fewer rows than ranks.
SIZES = [6, 5, 6, 4, 6, 3, 6, 6, 5, 6, 6, 1, 6, 6, 4, 6, 6, 2, 6, 6, 3]


def stack_for(model: str, kind: str, *, normalized: bool) -> ALStack:
    """Return a model in float64 with Adam, or in float32 with SGD; without batch normalization unless `normalized`.

    With batch normalization it has SGD in float64, too: a bias before one has no true gradient, and Adam would magnify
    its rounding error.
    """
    stack = build(model)
    for layer in stack:
        layer.__class__ = ClassifierAL if type(layer).__name__ == "AL" else type(layer)
        if not normalized:
            for module in layer.modules():
                for name, child in module._modules.items():
                    if isinstance(child, nn.modules.batchnorm._BatchNorm):
                        module._modules[name] = nn.Identity()
        if kind == "float64":
            layer.double()
        groups = [
            {"params": [one for one in side.parameters() if one.requires_grad], "lr": 1e-3, "name": name}
            for name, side in (("enc", layer.enc), ("ae", layer.ae))  # type: ignore[union-attr]
        ]
        adam = kind == "float64" and not normalized
        layer.optimizer = torch.optim.Adam(groups) if adam else torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    if kind == "float64":
        stack.target.double()  # type: ignore[union-attr, attr-defined]
    return stack


def data_for(model: str, kind: str, smallest: int = 1) -> Batches:
    """Return batches of uneven sizes, none smaller than `smallest`."""
    made = []
    for (x, labels), size in zip(batches(model)[:-1], SIZES, strict=False):
        size = max(size, smallest)
        cut = tuple(one[:size] for one in x) if isinstance(x, tuple) else x[:size]
        cut = cut.double() if isinstance(cut, torch.Tensor) and kind == "float64" else cut
        made.append((cut, labels[:size]))
    return made


def run(schedule: Any, stack: ALStack, data: Batches) -> dict[str, Any]:
    """Train with a snapshot at the end, and predict; under any schedule."""
    taken = Snapshot()
    losses = list(schedule.run([*data, taken]))
    stack.eval()
    predictions = list(schedule.predict([x for x, _ in data[:3]]))
    return {"losses": losses_of(losses), "state": taken.state, "predictions": predictions}


def train(
    model: str, kind: str, ranks: list[int] | None, replicas: list[int], *, normalized: bool = False, smallest: int = 1
) -> dict[str, Any]:
    """Train over ranks, and return what rank 0 has of it, and the weights of every rank.

    The ranks with odd numbers build without values.
    """
    with torch.device("meta") if dist.get_rank() % 2 else nullcontext():
        stack = stack_for(model, kind, normalized=normalized)
    found: dict[str, Any] = {}
    options: dict[str, Any] = {"sync_batchnorm": normalized}
    with make_schedule("distributed", stack, ranks=ranks, replicas=replicas, threads=1, seed=SEED, **options) as made:
        if made.leads:  # type: ignore[attr-defined]
            found = run(made, stack, data_for(model, kind, smallest))
        else:
            made.serve()  # type: ignore[attr-defined]
    found["own"] = {
        name: [one.clone() for one in (*layer.parameters(), *layer.buffers())]
        for name, layer in stack.items()
        if not any(one.is_meta for one in layer.parameters())
    }
    found["reports"] = made.reports()  # type: ignore[attr-defined]
    found["bytes"] = made.weights  # type: ignore[attr-defined]
    return found


def train_cases(cases: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Train each case, and return what this rank has of it."""
    return [train(*case) for case in cases]


def train_with_normalization(cases: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Train each case with synchronized batch normalization, which needs a row on every rank."""
    return [train(*case, normalized=True, smallest=4) for case in cases]


def alone(model: str, kind: str, *, normalized: bool = False, smallest: int = 1) -> dict[str, Any]:
    """Do the same in one process."""
    stack = stack_for(model, kind, normalized=normalized)
    with make_schedule("sequential", stack, threads=1, seed=SEED) as schedule:
        return run(schedule, stack, data_for(model, kind, smallest))


class Variance(nn.Module):
    """A criterion that mixes the rows."""

    def forward(self, bridged: torch.Tensor, target: Any) -> torch.Tensor:
        return bridged.var()


def refused() -> str:
    """Make a schedule with replicas of a layer whose loss mixes the rows, and return what it says."""
    stack = stack_for("convolutions", "float32", normalized=True)
    stack[1].enc.cri = Variance()  # type: ignore[union-attr]
    try:
        make_schedule("distributed", stack, ranks=[0, 0, 0], replicas=[dist.get_world_size()], threads=1)
    except ValueError as error:
        return str(error)
    return ""


def fail_in_replica(rank: int, batch: int) -> Any:
    """Train over two replicas, one of which fails on a batch; return what this rank has raised."""
    stack = stack_for("convolutions", "float32", normalized=True)
    original = stack[1].enc.f.forward  # type: ignore[union-attr]
    calls = [0]

    def fail(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if dist.get_rank() == rank and calls[0] > batch:
            raise ValueError("the weather is bad")
        out: torch.Tensor = original(x)
        return out

    stack[1].enc.f.forward = fail  # type: ignore[union-attr]
    try:
        with make_schedule("distributed", stack, ranks=[0, 0, 0], replicas=[2], threads=1, seed=SEED) as schedule:
            if schedule.leads:  # type: ignore[attr-defined]
                schedule._checked = True
                list(schedule.run(data_for("convolutions", "float32", 4)))
            else:
                schedule.serve()  # type: ignore[attr-defined]
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "rank", None)
    return None
