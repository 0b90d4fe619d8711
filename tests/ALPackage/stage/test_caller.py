"""What holds on the caller's thread holds in the layers as well, or is refused: schedules stay equal."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ALPackage import AE, AL, ENC, ALStack, make_schedule

from ..hooked import ALL, CONCURRENT, assert_equal, snapshot
from ..one_layer import dense_batches, dense_layer

SCALE = ContextVar("SCALE", default=1.0)
Context = Callable[[], AbstractContextManager[Any]]


class Call(nn.Module):
    """A linear map, and a function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor], wide: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, 6)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


def train(schedule: str, context: Context, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    torch.manual_seed(0)
    layers = [AL(ENC(Call(function, 6), nn.Linear(6, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)), 0.01) for _ in "ab"]
    stack, data = ALStack(layers), dense_batches(6)
    with make_schedule(schedule, stack, threads=1) as one:
        list(one.run(data[:2]))  # its threads exist before the context does
        with context():
            list(one.run(data))
            list(one.predict([x for x, _ in data]))
    return snapshot(stack)


@contextmanager
def variable() -> Iterator[None]:
    token = SCALE.set(0.5)
    try:
        yield
    finally:
        SCALE.reset(token)


@contextmanager
def three_digits() -> Iterator[None]:
    with decimal.localcontext() as context:
        context.prec = 3
        yield


@contextmanager
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor cannot")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def coarse() -> Any:
    """Save activations for the backward pass in half precision."""
    return torch.autograd.graph.saved_tensors_hooks(
        lambda one: (one.half(), one.dtype), lambda saved: saved[0].to(saved[1])
    )


class CastingBackward(torch.autograd.Function):
    """The identity, whose backward pass multiplies matrices, which autocast would do in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return (gradient.float() @ torch.full((6, 6), 0.3)).to(gradient.dtype)


def scaled(out: Tensor) -> Tensor:
    return out * SCALE.get()


def third(out: Tensor) -> Tensor:
    return out * float(decimal.Decimal(1) / decimal.Decimal(3))


def denormal(out: Tensor) -> Tensor:
    return out * 1e-39 * 1e38


def on_default(out: Tensor) -> Tensor:
    return out * (2.0 if torch.empty(()).device.type == "meta" else 1.0)


def unchanged(out: Tensor) -> Tensor:
    return out


CASES: dict[str, tuple[Context, Callable[[Tensor], Tensor]]] = {
    "context variable": (variable, scaled),
    "decimal context": (three_digits, third),
    "flush denormal": (flushing, denormal),
    "torch.device": (lambda: torch.device("meta"), on_default),
    "set_default_device": (default_device, on_default),
    "saved-tensor hooks": (coarse, unchanged),
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16), CastingBackward.apply),  # type: ignore[dict-item]
    "no_grad": (torch.no_grad, unchanged),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_callers_state_reaches_every_layer(kind: str) -> None:
    """Guards a bug: layers on threads of their own computed something else than on the caller's."""
    context, function = CASES[kind]
    expected = train("sequential", context, function)
    for schedule in CONCURRENT:
        assert_equal(train(schedule, context, function), expected)
    plain = train("sequential", nullcontext, function)
    same = all(torch.equal(value, plain[name]) for name, value in expected.items())
    assert same == (kind == "no_grad"), "the case shows nothing"


class NothingMode(TorchFunctionMode):
    """Sees every call and changes none."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [lambda: FlopCounterMode(display=False), NothingMode])
@pytest.mark.parametrize("schedule", ALL)
def test_a_mode_that_cannot_be_carried_over_is_refused(schedule: str, mode: Context) -> None:
    stack = ALStack([dense_layer()])
    with make_schedule(schedule, stack, threads=1) as one, mode():
        if schedule == "sequential":
            assert len(list(one.run(dense_batches(2)))) == 2
        else:
            with pytest.raises(RuntimeError, match=r"Mode of the calling thread does not reach layers.*sequential"):
                list(one.run(dense_batches(2)))


@pytest.mark.parametrize("schedule", ALL)
def test_training_in_inference_mode_is_refused_by_every_schedule(schedule: str) -> None:
    """Guards a bug: the sequential schedule failed in torch's words, and the continuous one trained."""
    with make_schedule(schedule, ALStack([dense_layer()]), threads=1) as one, torch.inference_mode():
        for call in (lambda: list(one.run(dense_batches(1))), lambda: one.prepare(dense_batches(1)[0])):
            with pytest.raises(RuntimeError, match=r"nothing can be trained inside torch\.inference_mode\(\)"):
                call()
        assert len(list(one.predict([dense_batches(1)[0][0]]))) == 1


def test_what_the_context_holds_is_let_go_after_the_run() -> None:
    class Held:
        pass

    import gc
    import weakref

    variable_of_mine: ContextVar[Any] = ContextVar("variable_of_mine")
    with make_schedule("continuous", ALStack([dense_layer()]), threads=1) as one:
        held = Held()
        token = variable_of_mine.set(held)
        list(one.run(dense_batches(2)))
        variable_of_mine.reset(token)
        alive = weakref.ref(held)
        del held, token
        gc.collect()
        assert alive() is None
