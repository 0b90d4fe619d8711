"""What the tests of the distributed schedule run on every rank: functions that a new process can import."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ALPackage import Snapshot, make_schedule

from ..hooked import SEED, losses_of, rate, snapshot
from .test_schedules import batches, build

#: Batches before and after a snapshot.
BEFORE, AFTER = 5, 4


def train_cases(cases: list[tuple[str, list[int] | None]]) -> list[dict[str, Any]]:
    """Train each model under its cut, and return what this rank has of it."""
    return [train_model(model, cut) for model, cut in cases]


def train_model(model: str, cut: list[int] | None, **options: Any) -> dict[str, Any]:
    """Train, snapshot, predict and train on; return the state of this rank's layers, on rank 0 the results too."""
    stack = build(model)
    data = batches(model)
    found: dict[str, Any] = {"rank": dist.get_rank()}
    with make_schedule("distributed", stack, ranks=cut, threads=1, seed=SEED, **options) as schedule:
        if schedule.leads:
            taken = Snapshot()
            found |= run_as_rank_0(schedule, stack, data, taken)
            found["snapshot"], found["number"] = taken.state, taken.number
        else:
            schedule.serve()
        found["own"] = [name for name, one in zip(stack.names, schedule.ranks, strict=True) if one == found["rank"]]
        found["usage"] = [vars(usage) for usage in schedule.usage()]
        found["weights"], found["reports"] = schedule.weights, schedule.reports()
    found["bytes"] = sum(one.nbytes for one in stack.state_dict().values() if not one.is_meta)
    for name, layer in list(stack.items()):
        if name not in found["own"]:
            layer.optimizer.param_groups.clear()
    found["state"] = {
        name: value for name, value in snapshot(stack).items() if not value.is_meta and _of(name, found["own"])
    }
    return found


def _of(entry: str, own: list[str]) -> bool:
    """Return whether an entry of a state is of one of the layers `own`, or of no layer."""
    kind, path = entry.split()[:2]
    parts = path.split(".")
    return kind == "moment" or parts[0] != "layers" or parts[1] in own


def run_as_rank_0(schedule: Any, stack: Any, data: Any, taken: Snapshot) -> dict[str, Any]:
    """Do the same under any schedule: train with a snapshot in between, predict, train on."""
    losses = list(schedule.run([*data[:BEFORE], taken, *data[BEFORE:-AFTER]], lr=rate))
    stack.eval()
    predictions = list(schedule.predict([x for x, _ in data[-AFTER:]]))
    stack.train()
    losses += list(schedule.run(data[-AFTER:], lr=rate, first=len(data) - AFTER))
    return {"losses": losses_of(losses), "predictions": predictions}


def fail_on(rank: int, batch: int) -> Any:
    """Train a stack of which a layer on `rank` fails on `batch`, and return what this rank has raised."""
    stack = build("convolutions")
    cut = [0, 1, 2]
    layer = list(stack)[cut.index(rank)]
    original = layer.enc.f.forward
    calls = [0]

    def fail(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > batch:
            raise ValueError("the weather is bad")
        out: torch.Tensor = original(x)
        return out

    try:
        with make_schedule("distributed", stack, ranks=cut, threads=1, seed=SEED) as schedule:
            if schedule.leads:
                layer.enc.f.forward = fail  # type: ignore[method-assign]
                schedule._checked = True
                list(schedule.run(batches("convolutions"), lr=rate))
            else:
                layer.enc.f.forward = fail  # type: ignore[method-assign]
                schedule.serve()
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "rank", None)
    return None


def sent_and_received(rounds: list[Any]) -> list[Any]:
    """Send every structure from rank 0 to rank 1, and return what has arrived there."""
    from datetime import timedelta

    from ALPackage.ranks.link import Kind, Message, Receiver, Sender, new_group

    group, limit = new_group([0, 1]), timedelta(seconds=20)
    if dist.get_rank() == 0:
        sender = Sender(group, 1, limit)
        for number, tree in enumerate(rounds):
            sender.send(Message(Kind.TRAIN, number, tree))
        return [sum(sender.traffic.messages.values()), sum(sender.traffic.bytes.values())]
    receiver = Receiver(group, 0, limit)
    messages = [receiver.receive() for _ in rounds]
    assert [message.number for message in messages] == list(range(len(rounds)))
    return [message.content for message in messages]
