"""A stack that grows: the first layers train, the others wait, bit for bit as by hand, under every schedule."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ALPackage import AE, AL, ENC, ALStack, Snapshot, make_schedule
from ALPackage.nan_guard import Guard
from ALPackage.stage.trace import Trace
from ALPackage.testing import run_distributed
from tests.ALPackage.schedules import growing
from tests.ALPackage.schedules.test_replicas import assert_close
from tests.ALPackage.schedules.test_schedules import batches, build

from ..hooked import ALL, SEED, State, assert_equal, hooked, nothing, pairs, plain, rate, snapshot, steps, workers


@cache
def by_hand(model: str) -> tuple[dict[str, Any], State]:
    stack = build(model)
    return growing.by_hand(stack, batches(model)), snapshot(stack)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == expected["losses"]
    leaves = [tree_leaves(one["predictions"]) for one in (found, expected)]
    assert len(leaves[0]) == 2 * sum(layers for layers, _, _ in growing.STAGES)
    assert all(map(torch.equal, *leaves))


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("model", ["convolutions", "transformer"])
def test_a_growing_stack_is_equal_to_one_trained_by_hand(model: str, schedule: str) -> None:
    """With batch normalization and dropout; later layers at full rate, at a share of it, frozen, and thawed."""
    stack = build(model)
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        found = growing.grow(one, stack, batches(model), Snapshot())
    expected, state = by_hand(model)
    assert_same(found, expected)
    assert_equal(snapshot(stack), state)


@pytest.mark.slow
def test_ranks_whose_layers_wait_are_equal_to_one_process() -> None:
    expected, state = by_hand("convolutions")
    found = run_distributed(growing.on_rank, 2, "convolutions", [0, 1, 1], timeout=120.0)
    assert_same(found[0], expected)
    together: State = {}
    for one in found:
        together |= one["state"]
    assert_equal(together, state)
    assert list(found[0]["snapshot"]) == build("convolutions").names


@pytest.mark.slow
def test_replicas_whose_layers_wait_are_one_process_but_for_rounding() -> None:
    found = run_distributed(growing.on_replica, 3, [1, 2], timeout=120.0)[0]
    assert_close(found, growing.on_replica_alone(), 1e-9, 1e-12)


@pytest.mark.parametrize("schedule", ALL)
def test_layers_that_wait_do_not_move_and_do_no_work(schedule: str) -> None:
    seen: list[tuple[int, int, str]] = []
    stack = hooked(lambda *where: seen.append(where), layers=3)
    last = snapshot(ALStack([stack[2]]))
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        list(one.run(pairs(4), lr=rate, layers=2))
        assert {layer for layer, _, _ in seen} == {0, 1}
        assert steps(stack) == [{4.0}, {4.0}, {0.0}]
        assert_equal(snapshot(ALStack([stack[2]])), last)
        list(one.run(pairs(4), lr=rate, first=4))
    assert steps(stack) == [{8.0}, {8.0}, {4.0}]


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("schedule", ALL)
def test_a_frozen_layer_goes_forward_alone(schedule: str, guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No backward pass, no step of its optimizer; its weights, buffers and moments are as before."""
    stack, data = build("convolutions"), batches("convolutions")
    stepped: list[int] = []
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        list(one.run(data[:4], lr=rate))
        before = snapshot(ALStack([stack[0]]))
        stack[0].requires_grad_(False).eval()
        if guarded:
            stack[0].guard = Guard()
        for number, layer in enumerate(stack):
            layer.optimizer.register_step_pre_hook(lambda *_, number=number: stepped.append(number))
        gradients: list[bool] = []
        backward = torch.autograd.backward
        monkeypatch.setattr(torch.autograd, "backward", lambda loss: (gradients.append(True), backward(loss))[1])
        list(one.run(data[4:9], lr=rate, first=4))
    assert len(gradients) == 2 * 5
    assert sorted(stepped) == ([0] * 5 if guarded else []) + [1] * 5 + [2] * 5
    assert_equal(snapshot(ALStack([stack[0]])), before)


def test_an_update_that_fails_in_the_newest_layer_is_told_before_its_losses() -> None:
    """The newest layer hands on to those that wait: the caller must not get losses of a batch that fails yet."""

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, batch, phase) == (0, 2, "backward"):
            raise ValueError("the weather is bad")

    got = []
    with pytest.raises(RuntimeError, match="the weather is bad"), make_schedule("continuous", hooked(hook)) as one:
        got.extend(one.run(pairs(3), layers=1))
    assert len(got) <= 2
    assert not workers()


def test_a_trace_has_nothing_of_layers_that_wait() -> None:
    trace = Trace()
    with make_schedule("continuous", hooked(nothing), threads=1, trace=trace) as one:
        list(one.run(pairs(3), layers=2))
    assert {span.layer for span in trace.spans if span.phase == "backward"} == {"layer_1", "layer_2"}


@pytest.mark.parametrize("layers", [0, 4, -1])
def test_a_number_of_layers_that_there_is_not_is_refused(layers: int) -> None:
    with make_schedule("sequential", hooked(nothing), threads=1, seed=SEED) as one:
        with pytest.raises(ValueError, match=rf"^run: got layers={layers}; expected 1 to 3$"):
            list(one.run(pairs(1), layers=layers))
        with pytest.raises(ValueError, match=rf"^predict: got layers={layers}; expected 1 to 3$"):
            list(one.predict([pairs(1)[0][0]], layers=layers))
        list(one.run(pairs(12), lr=rate))
        assert_equal(snapshot(one.stack), plain(12))


@pytest.mark.parametrize("schedule", ALL)
def test_a_stack_that_has_got_another_layer_needs_another_schedule(schedule: str) -> None:
    stack = hooked(nothing)
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        list(one.run(pairs(2), lr=rate))
        stack.append(AL(ENC(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3))))
        with pytest.raises(RuntimeError, match="other layers than when this schedule was made; make a new one"):
            list(one.run(pairs(2)))
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        list(one.run(pairs(2), lr=rate, first=2))
    assert steps(stack) == [{4.0}, {4.0}, {4.0}, {2.0}]
