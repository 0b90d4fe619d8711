"""`Schedule.predict`: what `inference_by_depth` gives, bit for bit and in order, from layers that work at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, StageError, make_schedule
from tests.ALPackage.schedules.test_schedules import MODELS, batches, build, reference

from ..hooked import ALL, SEED, Broken, assert_equal, hooked, nothing, pairs, plain, rate, snapshot, workers

#: Schedules and their workers.
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("sequential", {}),
    ("al-fm", {}),
    ("continuous", {"workers": 1}),
    ("continuous", {"workers": 2}),
    ("continuous", {"workers": 4, "depth": 1}),
]


def same(found: list[list[Tensor]], expected: list[list[Tensor]]) -> bool:
    """Tell whether all predictions are equal bit for bit."""
    return len(found) == len(expected) and all(
        len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("schedule", "options"), WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_predictions_of_every_depth_are_those_of_the_stack(model: str, schedule: str, options: dict[str, Any]) -> None:
    """Before training, between two epochs and after: the last batch is smaller."""
    stack, data = build(model), batches(model)
    inputs = [x for x, _ in data]
    with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        for part, first in ((data[:9], 0), (data[9:], 9)):
            stack.eval()
            found = list(one.predict(iter(inputs[-4:])))
            assert same(found, [stack.inference_by_depth(x) for x in inputs[-4:]])
            assert not any(tensor.requires_grad for tensors in found for tensor in tensors)
            stack.train()
            list(one.run(part, lr=rate, first=first))
        stack.eval()
        found = list(one.predict(inputs))
    assert same(found, [stack.inference_by_depth(x) for x in inputs])
    assert len(found[0]) == len(stack)
    assert not same(found, found[::-1])
    assert_equal(snapshot(stack), reference(model)[0])


@pytest.mark.parametrize(("schedule", "options"), WAYS)
def test_the_layers_stay_in_the_mode_that_the_caller_set(schedule: str, options: dict[str, Any]) -> None:
    """In training mode the running means of a batch normalization move, as they do in the stack's own inference."""

    def normalized() -> ALStack:
        torch.manual_seed(4)
        return ALStack(
            AL(ENC(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3)), AE(nn.Linear(3, 3), h))
            for h in (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(3))
        )

    inputs = [x for x, _ in pairs(6)]
    stack, twin = normalized(), normalized()
    for training in (True, False):
        stack.train(training)
        twin.train(training)
        before = snapshot(stack)
        with make_schedule(schedule, stack, threads=1, **options) as one:
            found = list(one.predict(inputs))
        assert all(module.training is training for module in stack.modules())
        assert same(found, [twin.inference_by_depth(x) for x in inputs])
        assert_equal(snapshot(stack), snapshot(twin))
        assert training == any(not torch.equal(before[name], value) for name, value in snapshot(stack).items())


def test_prediction_is_pipelined() -> None:
    """The last layer does not end batch t until the first is at batch t + 1: without a pipeline it waits in vain."""
    count = 6
    begun = [threading.Event() for _ in range(count)]
    met: list[bool] = []

    def hook(layer: int, batch: int, phase: str) -> None:
        if layer == 0:
            begun[batch].set()
        if layer == 2 and batch + 1 < count:
            met.append(begun[batch + 1].wait(3.0))

    with make_schedule("continuous", hooked(hook), threads=1, workers=3) as one:
        assert len(list(one.predict(x for x, _ in pairs(count)))) == count
    assert met == [True] * (count - 1)


def test_the_inputs_are_read_only_a_bounded_number_of_batches_ahead() -> None:
    drawn, seen = 0, []
    full = threading.Event()

    def loader() -> Iterator[Tensor]:
        nonlocal drawn
        for x, _ in pairs(40):
            drawn += 1
            if drawn == 1 + 3 + 1:
                full.set()
            yield x

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch) == (2, 0):
            assert full.wait(3.0)
            threading.Event().wait(0.1)
            seen.append(drawn)

    with make_schedule("continuous", hooked(hook), threads=1, workers=3, depth=1) as one:
        assert len(list(one.predict(loader()))) == 40
    # The last layer is at work on one batch, one waits before each of three layers, and the caller holds one more.
    assert seen == [5]


@pytest.mark.parametrize("function", ["f", "b", "h"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize(("schedule", "options"), WAYS)
def test_a_failure_names_layer_and_batch(schedule: str, options: dict[str, Any], layer: int, function: str) -> None:
    stack, calls = hooked(nothing), 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2 * (3 - layer if function == "h" else 1):
            raise Broken("out of luck")

    broken = {"f": stack[layer].enc.f, "b": stack[layer].enc.b, "h": stack[layer].ae.h}[function]
    handle = broken.register_forward_pre_hook(fail)
    found = []
    with make_schedule(schedule, stack, threads=1, **options) as one, pytest.raises(StageError) as caught:
        found.extend(one.predict(x for x, _ in pairs(8)))
    assert (caught.value.layer, caught.value.batch) == (f"layer_{layer + 1}", 2)
    assert isinstance(caught.value.__cause__, Broken)
    assert not workers()
    handle.remove()
    with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        list(one.run(pairs(4), lr=rate))
    assert_equal(snapshot(stack), plain(4))


@pytest.mark.parametrize(("schedule", "options"), WAYS)
def test_a_failure_of_the_inputs_is_the_loaders(schedule: str, options: dict[str, Any]) -> None:
    def loader() -> Iterator[Tensor]:
        yield from (x for x, _ in pairs(3))
        raise Broken

    with make_schedule(schedule, hooked(nothing), threads=1, **options) as one, pytest.raises(StageError) as caught:
        list(one.predict(loader()))
    assert (caught.value.layer, caught.value.batch) == ("loader", 3)


@pytest.mark.parametrize(("schedule", "options"), WAYS)
def test_leaving_early_and_predicting_nothing_leave_the_schedule_usable(schedule: str, options: dict[str, Any]) -> None:
    stack = hooked(nothing)
    with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        assert list(one.predict(())) == []
        for number, _ in enumerate(one.predict(x for x, _ in pairs(12))):
            if number == 2:
                break
        list(one.run(pairs(6), lr=rate))
        open_run = one.run(pairs(12)[6:], lr=rate, first=6)
        next(open_run)
        with pytest.raises(RuntimeError, match="open run"):
            list(one.predict(x for x, _ in pairs(2)))
        assert len(list(open_run)) == 5
        open_prediction = one.predict(x for x, _ in pairs(3))
        next(open_prediction)
        with pytest.raises(RuntimeError, match="open run"):
            list(one.run(pairs(2)))
        assert len(list(open_prediction)) == 2
    assert_equal(snapshot(stack), plain(12))


class Again(nn.Linear):
    """Returns the same buffer every time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.keep(super().forward(x))

    def keep(self: Any, out: Tensor) -> Tensor:
        """Copy into the buffer and return it."""
        if not hasattr(self, "out"):
            self.out = torch.empty_like(out)
        return self.out.copy_(out)


@pytest.mark.parametrize(("schedule", "options"), WAYS)
def test_a_bridge_that_uses_its_output_again_spoils_no_prediction(schedule: str, options: dict[str, Any]) -> None:
    """A code is decoded when its bridge may be batches ahead."""
    stack = hooked(nothing)
    for layer in stack:
        layer.enc.b.__class__ = Again
        layer.ae.h = nn.Identity()
    inputs = [x for x, _ in pairs(10)]
    expected = [[y.clone() for y in stack.inference_by_depth(x)] for x in inputs]
    with make_schedule(schedule, stack, threads=1, **options) as one:
        found = list(one.predict(inputs))
    assert same(found, expected)


def held(event: threading.Event) -> None:
    """Wait, as a hook that returns nothing."""
    event.wait(3.0)


@pytest.mark.parametrize("schedule", ALL)
def test_a_layer_that_uses_its_output_again_is_right_or_refused(schedule: str) -> None:
    """In the pipeline the second batch is in the first layer while the first is still read by the second."""
    stack, second = hooked(nothing), threading.Event()
    inputs = [x for x, _ in pairs(4)]
    expected = [stack.inference_by_depth(x) for x in inputs]
    last = nn.Identity()
    last.__class__ = type("Last", (nn.Identity,), {"forward": Again.keep})
    stack[0].enc.f = nn.Sequential(stack[0].enc.f, last)
    calls = []

    def note(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 2:
            second.set()

    last.register_forward_hook(note)
    if schedule == "continuous":
        stack[1].enc.f.register_forward_hook(lambda *_: held(second))
        with (
            make_schedule(schedule, stack, threads=1) as one,
            pytest.raises(StageError, match="'layer_1' handed on a tensor that was changed in place"),
        ):
            list(one.predict(inputs))
    else:
        with make_schedule(schedule, stack, threads=1) as one:
            assert same(list(one.predict(inputs)), expected)


@pytest.mark.parametrize("schedule", ALL)
def test_dropout_in_training_mode_has_no_prediction_that_all_schedules_share(schedule: str) -> None:
    stack = build("convolutions")
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(RuntimeError, match=r"eval\(\)"):
        list(one.predict([x for x, _ in batches("convolutions")]))
    with make_schedule(schedule, stack.eval(), threads=1) as one:
        assert len(list(one.predict([x for x, _ in batches("convolutions")]))) == len(batches("convolutions"))
