"""What the tests of the distributed schedule run on every rank: functions that a new process can import."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist

from ALPackage import ALStack, Snapshot, make_schedule
from ALPackage.ranks import wire
from models import build_vision
from tests.allocated import Allocated

from ..hooked import SEED, losses_of, rate, snapshot
from .test_schedules import batches, build

#: Batches before and after a snapshot.
BEFORE, AFTER = 5, 4


def train_cases(cases: list[tuple[str, list[int] | None, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Train each model under its cut with its options, and return what this rank has of it.

    In every second case all ranks but the first build without values.
    """
    wire.SMALLEST = 512  # bytes of a tensor that is coded, if any is: what these models hand on is small
    return [
        train_model(model, cut, without_values=number % 2 == 1, **options)
        for number, (model, cut, options) in enumerate(cases)
    ]


def built(model: str, *, without_values: bool) -> ALStack:
    """Return a model; on all ranks but the first, if so wanted, without values."""
    with torch.device("meta") if without_values and dist.get_rank() else nullcontext():
        return build(model)


def train_model(model: str, cut: list[int] | None, *, without_values: bool = False, **options: Any) -> dict[str, Any]:
    """Train, snapshot, predict and train on; return the state of this rank's layers, on rank 0 the results too."""
    stack = built(model, without_values=without_values)
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
        name: value for name, value in snapshot(stack).items() if not value.is_meta and is_of(name, found["own"])
    }
    return found


def train_on(device: str, cut: list[int] | None) -> tuple[Any, dict[str, torch.Tensor]]:
    """Train all layers on one GPU, over ranks or, without a cut, alone; return losses, and the state of own layers."""
    torch.use_deterministic_algorithms(True)
    stack, data = build("transformer"), batches("transformer")
    stack.set_device([device] * len(stack))
    name, options = ("distributed", {"ranks": cut}) if cut else ("sequential", {})
    losses, own = [], list(stack.names)
    with make_schedule(name, stack, threads=1, seed=SEED, **options) as schedule:
        if cut:
            own = [layer for layer, rank in zip(own, cut, strict=True) if rank == dist.get_rank()]
        if cut and not schedule.leads:  # type: ignore[attr-defined]
            schedule.serve()  # type: ignore[attr-defined]
        else:
            losses = losses_of(list(schedule.run(data, lr=rate)))
    for layer, one in list(stack.items()):
        if layer not in own:
            one.optimizer.param_groups.clear()
    state = {entry: value.cpu() for entry, value in snapshot(stack).items() if not value.is_meta}
    return losses, {entry: value for entry, value in state.items() if is_of(entry, own)}


def memory_of(model: str) -> dict[str, Any]:
    """Return the bytes that tensors get on this rank where all ranks but the first build without values.

    "refused": what rank 0 is told where it does, too.
    """
    found: dict[str, Any] = {}
    with Allocated() as building:
        stack = built(model, without_values=True)
    with Allocated() as taking, make_schedule("distributed", stack, threads=1) as schedule:
        found["weights"] = schedule.reports()[0].weights  # type: ignore[attr-defined]
        if not schedule.leads:  # type: ignore[attr-defined]
            schedule.serve()  # type: ignore[attr-defined]
    if not dist.get_rank():
        with torch.device("meta"):
            stack = build(model)
        try:
            make_schedule("distributed", stack)
        except ValueError as error:
            found["refused"] = str(error)
    return {**found, "built": building.bytes, "taken": taking.bytes}


def reconstruct(cut: list[int] | None) -> dict[str, Any]:
    """Train layers with decoders, whose buffers no checkpoint has; the other ranks build them without values."""
    torch.manual_seed(1)
    follows = cut is not None and dist.get_rank() > 0
    with torch.device("meta") if follows else nullcontext():
        stack = build_vision(
            "vgg", "infopro", n_classes=4, in_channels=1, image_size=16, width=0.05, enc_dim=16, lr=1e-3
        )
    assert isinstance(stack, ALStack)
    name, options = ("distributed", {"ranks": cut}) if cut else ("sequential", {})
    taken = Snapshot()
    with make_schedule(name, stack, threads=1, seed=SEED, **options) as schedule:
        if follows:
            schedule.serve()  # type: ignore[attr-defined]
            return {}
        losses = list(schedule.run([*batches("vgg"), taken]))
    return {"losses": [[one.item() for of in each for one in of.values()] for each in losses], "state": taken.state}


def is_of(entry: str, own: list[str]) -> bool:
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


def change_between_runs(cut: list[int] | None) -> dict[str, Any]:
    """Train, change what a script may change, and train on, under the schedule over ranks or, without a cut, alone."""
    stack = build("convolutions")
    data = batches("convolutions")
    name, options = ("distributed", {"ranks": cut}) if cut else ("sequential", {})
    with make_schedule(name, stack, threads=1, seed=SEED, **options) as schedule:
        if cut and not schedule.leads:  # type: ignore[attr-defined]
            schedule.serve()  # type: ignore[attr-defined]
        else:
            rates = [torch.optim.lr_scheduler.ExponentialLR(layer.optimizer, 0.5) for layer in stack]
            list(schedule.run([Snapshot(), *data[:3]]))
            for rate, layer in zip(rates, stack, strict=True):
                rate.step()
                layer.optimizer.param_groups[0]["weight_decay"] = 0.1
                next(layer.parameters()).requires_grad_(False)
            list(schedule.run(data[3:]))
            taken = Snapshot()
            list(schedule.run([data[0], taken]))
            run = iter(schedule.run(data))
            next(run)  # and leave it open
    if cut and dist.get_rank():
        return {}
    return {layer: state["layer"] for layer, state in taken.state.items()}


class Uncopied(torch.nn.Module):
    """A module that cannot be copied, so that the check before training stops there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("not this one")


def train_what_cannot_be_copied() -> int:
    """Train a stack whose first layer cannot be copied; return how many batches are trained."""
    stack = build("convolutions")
    first = next(iter(stack))
    first.enc.f = torch.nn.Sequential(first.enc.f, Uncopied())
    with warnings.catch_warnings(), make_schedule("distributed", stack, threads=1, seed=SEED) as schedule:
        warnings.simplefilter("ignore")
        if schedule.leads:  # type: ignore[attr-defined]
            return len(list(schedule.run(batches("convolutions"))))
        schedule.serve()  # type: ignore[attr-defined]
    return 0


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

    limit = timedelta(seconds=20)
    group = new_group([0, 1], limit)
    if dist.get_rank() == 0:
        sender = Sender(group, 1, limit)
        for number, tree in enumerate(rounds):
            sender.send(Message(Kind.TRAIN, number, tree))
        return [sum(sender.traffic.messages.values()), sum(sender.traffic.bytes.values())]
    receiver = Receiver(group, 0, limit)
    messages = [receiver.receive() for _ in rounds]
    assert [message.number for message in messages] == list(range(len(rounds)))
    return [message.content for message in messages]
