"""Bit-equality whoever runs the layers, with any delays and shared tensors; or an error, and nothing in between."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, StageError, make_schedule, set_device
from ALPackage.randomness import Dropout
from tests.ALPackage.schedules.test_schedules import MODELS, batches, build, reference

from ..hooked import (
    ALL,
    CONCURRENT,
    SEED,
    Batches,
    assert_equal,
    crew_of,
    hooked,
    losses_of,
    nothing,
    pairs,
    plain,
    rate,
    snapshot,
    steps,
    train,
)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("way", ["one worker", "two workers", "a worker too many", "tied", "partly tied"])
@pytest.mark.parametrize("model", MODELS)
def test_any_number_of_workers_is_equal_bit_for_bit(model: str, way: str, depth: int) -> None:
    """As many workers as layers is in test_schedules."""
    stack = build(model)
    count = len(stack)
    workers = {"one worker": 1, "two workers": 2, "a worker too many": count + 1, "tied": None, "partly tied": 2}[way]
    if way == "tied":
        set_device(stack, ["cpu:0"] * (count - 1) + ["cpu:3"])
    if way == "partly tied":
        set_device(stack, ["cpu:1"] + ["cpu"] * (count - 1))
    losses = train("continuous", stack, batches(model), workers=workers, depth=depth)
    state, expected = reference(model)
    assert losses == expected
    assert_equal(snapshot(stack), state)


@pytest.mark.parametrize("workers", [3, 4])
def test_the_next_layer_begins_before_the_backward_pass_of_this_one(workers: int) -> None:
    """Neither ends before the other has begun: without early hand-over the backward pass would wait in vain."""
    count = 6
    begun = {(layer, batch): threading.Event() for layer in range(3) for batch in range(count)}
    met: list[bool] = []

    def hook(layer: int, batch: int, phase: str) -> None:
        if phase == "forward":
            begun[layer, batch].set()
        elif layer < 2:
            met.append(begun[layer + 1, batch].wait(3.0))

    stack = hooked(hook)
    train("continuous", stack, pairs(count), workers=workers)
    assert met == [True] * count * 2
    assert_equal(snapshot(stack), plain(count))


@pytest.mark.parametrize("end", ["end", "break", "loader"])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_when_a_run_has_ended_every_layer_has_made_its_last_update(slow: int, end: str) -> None:
    """The last batch has left the pipeline long before an early layer has updated on it."""

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, phase) == (slow, "backward"):
            time.sleep(0.08 if batch in (3, 5) else 0.0)

    stack, drawn = hooked(hook), 0

    def loader() -> Any:
        nonlocal drawn
        for pair in pairs(6):
            drawn += 1
            yield pair
        if end == "loader":
            raise ValueError

    with make_schedule("continuous", stack, threads=1, seed=SEED, workers=3) as one:
        try:
            for number, _ in enumerate(one.run(loader(), lr=rate)):
                if end == "break" and number == 3:
                    break
        except StageError:
            assert end == "loader"
        assert steps(stack) == [{float(drawn)}] * 3
        assert all(parameter.grad is None for parameter in stack.parameters())
        assert_equal(snapshot(stack), plain(drawn))


def held(event: threading.Event) -> None:
    """Wait, as a hook that returns nothing."""
    event.wait(3.0)


class Buffer(nn.Linear):
    """Returns the same tensor every time, with the values of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if not hasattr(self, "out"):
            self.out = torch.empty_like(out).detach()
        self.out = self.out.detach()
        return self.out.copy_(out)


@pytest.mark.usefixtures("unchecked")  # its copies would be counted as calls of the layer
@pytest.mark.parametrize("side", ["f", "g"])
def test_a_tensor_that_is_handed_on_and_used_again_is_an_error(side: str) -> None:
    """Sequential is done with it by then; in a pipeline the next layer is not."""
    stack, second = hooked(nothing, layers=2), threading.Event()
    if side == "f":
        stack[0].enc.f = nn.Sequential(stack[0].enc.f, Buffer(4, 4))
        stack[0].reset_optimizer()
    else:
        stack[0].ae.g.__class__ = Buffer
    first, calls = stack[0], []
    module = first.enc if side == "f" else first.ae

    def note(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 2:
            second.set()

    module.register_forward_hook(note)
    stack[1].register_forward_pre_hook(lambda *_: held(second))
    with (
        make_schedule("continuous", stack, threads=1) as one,
        pytest.raises(StageError, match=r"in.?place") as caught,
    ):
        list(one.run(pairs(6)))
    assert isinstance(caught.value.__cause__, RuntimeError)


class Own(nn.Module):
    """A g that returns its own parameter, which the layer's update changes."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(5, 3))

    def forward(self, y: Tensor) -> Tensor:
        return self.code


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("schedule", ALL)
def test_a_parameter_that_is_handed_on_is_an_error_in_every_schedule(schedule: str, workers: int) -> None:
    if workers > 1 and schedule != "continuous":
        return
    for at in range(2):
        stack = hooked(nothing)
        layers = list(stack)
        layers[at] = AL(layers[at].enc, AE(Own(), nn.Linear(3, 3)), 0.01)
        options = {"workers": workers} if schedule == "continuous" else {}
        with (
            make_schedule(schedule, ALStack(layers), threads=1, **options) as one,
            # The next layer's seal or its backward pass: with threads, either may be the first to meet the change.
            pytest.raises(StageError, match=r"in.?place"),
        ):
            list(one.run(pairs(4)))


def test_a_loader_that_fills_one_buffer_again_is_an_error() -> None:
    """Batches wait before the first layer, where the loader would change them."""
    held = threading.Event()
    x, y = (part.clone() for part in pairs(1)[0])

    def loader() -> Any:
        for number, (a, b) in enumerate(pairs(8)):
            if number == 2:
                held.set()
            yield x.copy_(a), y.copy_(b)

    def hook(layer: int, batch: int, phase: str) -> None:
        if layer == 0 and phase == "forward":
            held.wait(3.0)

    with (
        make_schedule("continuous", hooked(hook), threads=1) as one,
        pytest.raises(StageError, match=r"in.?place") as caught,
    ):
        list(one.run(loader()))
    assert caught.value.layer == "layer_1"


class InPlace(nn.Module):
    """Changes what it is given and returns it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh_()


class Tuples(nn.Module):
    """Changes the first of two tensors and lets the second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        x, lengths = x if isinstance(x, tuple) else (x, torch.arange(len(x)))
        return self.linear(x).relu_(), lengths


class First(nn.Module):
    """A bridge from the first of a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Any) -> Tensor:
        out: Tensor = self.linear(x[0])
        return out


LEGAL = {
    "identity": lambda: (nn.Identity(), nn.Linear(4, 3)),
    "views": lambda: (nn.Unflatten(1, (2, 2)), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))),
    "tuples": lambda: (Tuples(), First()),
    "in place on its own": lambda: (nn.Sequential(nn.Linear(4, 4), InPlace()), nn.Linear(4, 3)),
}


@pytest.mark.parametrize("kind", list(LEGAL))
@pytest.mark.parametrize("schedule", CONCURRENT)
def test_what_is_in_order_is_no_false_alarm_and_equal(schedule: str, kind: str) -> None:
    def made() -> ALStack:
        torch.manual_seed(6)
        layers = []
        for number in range(3):
            f, b = LEGAL[kind]()
            if kind == "views" and number:
                f = nn.Identity()
            layers.append(AL(ENC(f, b), AE(nn.Identity() if number else nn.Linear(3, 3), nn.Linear(3, 3)), 0.01))
        return ALStack(layers)

    expected, found = made(), made()
    losses = train("sequential", expected, pairs(10))
    assert train(schedule, found, pairs(10)) == losses
    assert_equal(snapshot(found), snapshot(expected))
    inputs = [x for x, _ in pairs(5)]
    predictions = []
    for name in ("sequential", schedule):
        with make_schedule(name, found.eval(), threads=1) as one:
            predictions.append(list(one.predict(inputs)))
    for one_batch, other in zip(*predictions, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one_batch, other, strict=True))


class Slow(nn.Module):
    """The identity, with a pause before and one in the backward pass."""

    def __init__(self, before: float, backward: float) -> None:
        super().__init__()
        self.pauses = before, backward

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.pauses[0])
        out = x * 1.0
        if out.requires_grad:
            out.register_hook(lambda _: time.sleep(self.pauses[1]))
        return out


def drawn(widths: list[int], extras: list[tuple[bool, bool]], pauses: list[tuple[int, int]] | None) -> ALStack:
    """Return a stack of these widths, with dropout and normalization where asked for, and pauses in ms."""
    torch.manual_seed(9)
    layers, below = [], 4
    for number, (width, (drop, norm)) in enumerate(zip(widths, extras, strict=True)):
        f: list[nn.Module] = [nn.Linear(below, width), nn.Tanh()]
        f += [nn.BatchNorm1d(width)] * norm + [Dropout(0.3)] * drop
        f += [] if pauses is None else [Slow(pauses[number][0] / 1e3, pauses[number][1] / 1e3)]
        g = nn.Sequential(nn.Linear(3, 3), Dropout(0.2 if drop else 0.0))
        layers.append(AL(ENC(nn.Sequential(*f), nn.Linear(width, 3)), AE(g, nn.Linear(3, 3)), 0.01))
        below = width
    return ALStack(layers)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a stack, its workers and the layers that each may run, its delays, and how many batches it gets."""
    count = draw(st.integers(1, 5))
    workers = draw(st.integers(1, count + 1))
    # Who may run a layer: at least one of the workers.
    able = draw(st.lists(st.sets(st.integers(0, workers - 1), min_size=1), min_size=count, max_size=count))
    each = {"min_size": count, "max_size": count}
    return {
        "widths": draw(st.lists(st.integers(1, 6), **each)),
        "extras": draw(st.lists(st.tuples(st.booleans(), st.booleans()), **each)),
        "pauses": draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), **each)),
        "workers": workers,
        "able": able,
        "depth": draw(st.integers(1, 4)),
        "schedule": draw(st.sampled_from(["continuous", "continuous", "continuous", "al-fm"])),
        "batches": draw(st.integers(0, 8)),
        "last": draw(st.integers(2, 5)),
        "lr": draw(st.booleans()),
        "first": draw(st.integers(0, 3)),
    }


def outcome(schedule: str, stack: ALStack, data: Batches, run: dict[str, Any]) -> Any:
    """Train, predict and train on; return all losses, predictions and the state."""
    lr = rate if run["lr"] else None
    options = {"depth": run["depth"]} if schedule == "continuous" else {}
    with crew_of(run["workers"], run["able"]), make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        losses = losses_of(list(one.run(data, lr=lr, first=run["first"])))
        stack.eval()
        predictions = list(one.predict(x for x, _ in data))
        stack.train()
        losses += losses_of(list(one.run(data[:2], lr=lr, first=run["first"] + 50)))
    return losses, predictions, snapshot(stack)


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_any_stack_on_any_workers_with_any_delays_is_equal(run: dict[str, Any]) -> None:
    data = pairs(run["batches"])
    if data:
        data[-1] = (data[-1][0][: run["last"]], data[-1][1][: run["last"]])
    shape = run["widths"], run["extras"]
    losses, predictions, state = outcome("sequential", drawn(*shape, None), data, run)
    found = outcome(run["schedule"], drawn(*shape, run["pauses"]), data, run)
    assert found[0] == losses
    assert_equal(found[2], state)
    assert len(found[1]) == len(predictions) == len(data)
    for one, other in zip(found[1], predictions, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
