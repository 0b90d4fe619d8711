"""What the tests of the schedules share: states bit for bit, and a stack to slow down and break."""

from __future__ import annotations

import copy
import functools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule
from ALPackage.base import LearningRate
from ALPackage.stage.batch import LocalLosses
from ALPackage.stage.crew import Member

CONCURRENT = ["al-fm", "continuous"]
ALL = ["sequential", *CONCURRENT]
SEED = 5

Batches = list[tuple[Any, Any]]
State = dict[str, Tensor]
Hook = Callable[[int, int, str], None]


def rate(step: int) -> LearningRate:
    """Return a learning rate that changes at every step, and differs between the sides at every third."""
    return 2e-3 / (1 + step) if step % 3 else {"enc": 1e-3 / (1 + step), "ae": 3e-3}


def snapshot(stack: ALStack, optimizers: Sequence[torch.optim.Optimizer] | None = None) -> State:
    """Return a copy of every parameter, buffer and optimizer moment, by name."""
    state = {f"parameter {name}": p.detach().clone() for name, p in stack.named_parameters()}
    state |= {f"buffer {name}": b.clone() for name, b in stack.named_buffers()}
    for (name, layer), optimizer in zip(stack.items(), optimizers or [one.optimizer for one in stack], strict=True):
        names = {id(p): f"{name}.{own}" for own, p in layer.named_parameters()}
        for parameter, moments in optimizer.state.items():
            for key, value in moments.items():
                state[f"moment {names[id(parameter)]} {key}"] = torch.as_tensor(value).clone()
    return state


def assert_equal(found: State, expected: State) -> None:
    """Fail with the names of all entries that are not equal bit for bit."""
    assert found.keys() == expected.keys()
    differ = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not differ, f"{len(differ)} of {len(expected)} entries differ: {', '.join(differ[:5])}"


def losses_of(reported: Sequence[LocalLosses]) -> list[list[tuple[float, float]]]:
    """Return reported losses as numbers."""
    return [[(one["assoc"].item(), one["ae"].item()) for one in layers] for layers in reported]


def train(schedule: str, stack: ALStack, data: Batches, **options: Any) -> list[list[tuple[float, float]]]:
    """Train `stack` on `data` under a schedule, one intra-op thread per worker, and return the losses."""
    with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        return losses_of(list(one.run(data, lr=rate)))


@contextmanager
def crew_of(workers: int, able: Sequence[Collection[int]]) -> Iterator[None]:
    """Give the continuous schedules that are made within the block other workers; `able`: who may run each layer."""
    cpu = torch.device("cpu")
    members = [
        Member(f"cpu:{worker}", cpu, tuple(layer for layer, who in enumerate(able) if worker in who))
        for worker in range(workers)
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ALPackage.schedules.continuous.crew", lambda *_, **__: members)
        yield


class Watched(torch.autograd.Function):
    """The identity, which calls a function with "forward" and with "backward"."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, watch: Callable[[str], None]) -> Tensor:
        ctx.watch = watch
        watch("forward")
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.watch("backward")
        return grad, None


class Hooked(nn.Module):
    """A linear f that calls `hook(layer, batch, phase)` in each forward and each backward pass of training."""

    def __init__(self, layer: int, hook: Hook) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.layer = layer
        self.hook = hook
        self.batch = -1

    def __deepcopy__(self, memo: dict[int, Any]) -> Hooked:
        """Copies, such as those that are checked before training, do not call the hook."""
        twin = Hooked(self.layer, nothing)
        twin.linear = copy.deepcopy(self.linear, memo)
        return twin

    def forward(self, x: Tensor) -> Tensor:
        self.batch += 1
        batch = self.batch
        out: Tensor = Watched.apply(torch.tanh(self.linear(x)), lambda phase: self.hook(self.layer, batch, phase))
        return out


def hooked(hook: Hook, layers: int = 3, kind: type[AL] = AL, **options: Any) -> ALStack:
    """Return a stack of small layers that call `hook(layer, batch, phase)`, layers numbered from 0."""
    torch.manual_seed(1)
    return ALStack(
        kind(ENC(Hooked(n, hook), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)), 0.01, **options)
        for n in range(layers)
    )


def pairs(count: int = 12) -> Batches:
    """Return `count` batches for a hooked stack."""
    draw = torch.Generator().manual_seed(2)
    return [(torch.randn(5, 4, generator=draw), torch.randn(5, 3, generator=draw)) for _ in range(count)]


def nothing(layer: int, batch: int, phase: str) -> None:
    """Be the hook that does nothing."""


@functools.cache
def plain(count: int) -> State:
    """Return the state that a hooked stack has after `count` batches of the sequential schedule."""
    stack = hooked(nothing)
    train("sequential", stack, pairs(count))
    return snapshot(stack)


def delay(layer: int, batch: int, phase: str) -> None:
    """Sleep 1 to 5 ms, otherwise for every layer, batch and phase."""
    time.sleep(0.001 * (1 + (3 * layer + 7 * batch + 2 * (phase == "backward")) % 5))


def steps(stack: ALStack) -> list[set[float]]:
    """Return, per layer, the numbers of updates that its parameters have had."""
    return [{float(moments["step"]) for moments in layer.optimizer.state.values()} or {0.0} for layer in stack]


def workers() -> list[threading.Thread]:
    """Return the schedules' threads that run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("al-")]


class Broken(Exception):  # noqa: N818 (short, as it is in every second test)
    """What the tests break layers and loaders with."""


def break_at(layer: int, batch: int, phase: str, error: BaseException) -> Hook:
    """Return a hook that raises `error` at one place."""

    def hook(*where: int | str) -> None:
        if where == (layer, batch, phase):
            raise error

    return hook
