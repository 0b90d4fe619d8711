"""Batches whose loss is not finite leave nothing behind, under every schedule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, Guard, make_schedule

from .hooked import ALL, assert_equal, losses_of, rate, snapshot

BAD = (1, 4)


def stack(guarded: bool = True) -> ALStack:
    """Return three layers with batch normalization, always with the same weights."""
    torch.manual_seed(3)
    layers = []
    for _ in range(3):
        f = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
        layers.append(AL(ENC(f, nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)), 0.01))
        if guarded:
            layers[-1].guard = Guard()
    return ALStack(layers)


def batches(value: float) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    found = [(torch.randn(5, 4, generator=draw), torch.randn(5, 3, generator=draw)) for _ in range(6)]
    for number in BAD:
        found[number][0][2, 1] = value
    return found


def train(schedule: str, one: ALStack, data: list[Any], first: int = 0) -> list[Any]:
    with make_schedule(schedule, one, threads=1, seed=2) as made:
        return losses_of(list(made.run(data, lr=rate, first=first)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("schedule", ALL)
def test_training_is_as_if_the_batch_had_not_been_there(schedule: str, value: float) -> None:
    found, expected = stack(), stack()
    data = batches(value)
    losses = train(schedule, found, data)
    for first, last in ((0, 1), (2, 4), (5, 6)):  # the same numbers, so the same rates
        train("sequential", expected, data[first:last], first)
    assert_equal(snapshot(found), snapshot(expected))
    for number, batch in enumerate(losses):
        finite = torch.isfinite(torch.tensor(batch)).all(1).tolist()
        assert finite == [number not in BAD] * 3


@pytest.mark.parametrize("schedule", ALL)
def test_without_a_guard_it_would_spoil_all_that_follows(schedule: str) -> None:
    spoiled = stack(guarded=False)
    train(schedule, spoiled, batches(float("nan")))
    assert all(bool(torch.isnan(parameter).any()) for parameter in spoiled[0].enc.parameters())


def test_where_no_loss_is_bad_a_guard_changes_nothing() -> None:
    data = [pair for number, pair in enumerate(batches(0.0)) if number not in BAD]
    guarded, free = stack(), stack(guarded=False)
    assert train("continuous", guarded, data) == train("continuous", free, data)
    assert_equal(snapshot(guarded), snapshot(free))


def test_only_the_layer_with_the_bad_loss_leaves_its_step_out() -> None:
    class Broken(nn.MSELoss):
        def forward(self, bridged: Tensor, code: Tensor) -> Tensor:
            return super().forward(bridged, code) * float("inf")

    layers = list(stack())
    layers[1] = AL(ENC(layers[1].enc.f, layers[1].enc.b, Broken()), layers[1].ae, 0.01)
    layers[1].guard = Guard()
    one = ALStack(layers)
    before = [snapshot(ALStack([layer])) for layer in one]
    train("continuous", one, batches(0.0))
    changed = [
        any(key not in old or not torch.equal(value, old[key]) for key, value in snapshot(ALStack([layer])).items())
        for layer, old in zip(one, before, strict=True)
    ]
    assert changed == [True, False, True]


def test_a_copy_of_a_layer_has_a_guard_of_its_own() -> None:
    layer = stack()[0]
    assert isinstance(copy.deepcopy(layer).guard, Guard)
    assert copy.deepcopy(layer).guard is not layer.guard


class OnGPU(Tensor):
    """A loss that says it is on a GPU."""

    is_cuda = True


@pytest.mark.filterwarnings("error")
def test_an_optimizer_that_is_not_fused_is_warned_of_once_where_the_host_would_wait() -> None:
    """Guards a bug: the wait at every step was only documented."""
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    adam = torch.optim.Adam([weight])
    guard = Guard()
    guard.step(adam, torch.tensor(1.0))  # on the CPU nothing waits
    loss = torch.tensor(1.0).as_subclass(OnGPU)
    with pytest.warns(UserWarning, match=r"Adam is not fused.*waits for the GPU.*fused=True"):
        guard.step(adam, loss)
    guard.step(adam, loss)
    copy.deepcopy(guard).step(adam, loss)
    assert adam.state[weight]["step"] == 4
    fused = torch.optim.SGD([weight], fused=True)
    monkeypatched: list[float] = []
    fused.step = lambda: monkeypatched.append(float(fused.found_inf))  # type: ignore[assignment,attr-defined,method-assign,misc,return-value]
    for value in (1.0, float("nan")):
        Guard().step(fused, torch.tensor(value).as_subclass(OnGPU))
    assert monkeypatched == [0.0, 1.0]
    assert not hasattr(fused, "found_inf")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fused", [True, False])
def test_on_a_gpu(fused: bool) -> None:
    def moved() -> ALStack:
        one = stack()
        for layer in one:
            layer.optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, fused=fused)
        one.set_device(["cuda:0"] * 3)
        return one

    found, expected = moved(), moved()
    data = batches(float("nan"))
    train("continuous", found, data)
    for first, last in ((0, 1), (2, 4), (5, 6)):
        train("sequential", expected, data[first:last], first)
    assert_equal(snapshot(found), snapshot(expected))
