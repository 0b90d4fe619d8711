"""Layers are measured on copies: the costs are those of the layers, and nothing else has changed."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC, ALStack
from ALPackage.objectives.codes import OneHot
from ALPackage.placement import cost as module
from ALPackage.placement.cost import measure
from ALPackage.randomness import Dropout

from ..hooked import assert_equal, hooked, nothing, pairs, snapshot, train


class Slow(AL):
    """A layer that takes a known time."""

    seconds = (0.0, 0.0)

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Sleep, then go forward."""
        time.sleep(self.seconds[0])
        return super().forward(x, y)

    def backward(self) -> None:
        """Sleep, then go back."""
        time.sleep(self.seconds[1])
        super().backward()


def slow(*times: tuple[float, float]) -> ALStack:
    """Return layers that take (forward, backward) seconds."""
    stack = ALStack(Slow(ENC(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3))) for _ in times)
    for layer, seconds in zip(stack, times, strict=True):
        layer.seconds = seconds  # type: ignore[assignment]
    return stack


def test_the_times_are_those_of_the_layers() -> None:
    times = [(0.02, 0.03), (0.04, 0.01)]
    costs = measure(slow(*times), pairs(1)[0], threads=1)
    assert [cost.name for cost in costs] == ["layer_1", "layer_2"]
    for cost, (forward, backward) in zip(costs, times, strict=True):
        assert forward <= cost.forward < forward + 0.05
        assert backward <= cost.backward < backward + 0.05
        assert cost.total == cost.forward + cost.backward


def test_the_first_step_and_outliers_do_not_count() -> None:
    calls = 0

    def hook(layer: int, batch: int, phase: str) -> None:
        nonlocal calls
        calls += phase == "forward"
        time.sleep(0.3 if calls in (1, 2, 4) else 0.0)

    assert measure(hooked(hook, layers=1), pairs(1)[0], threads=1, repeats=5)[0].forward < 0.1
    assert calls == 2 + 5


def test_once_the_budget_is_spent_each_layer_takes_four_steps() -> None:
    counts = [0, 0, 0]

    def hook(layer: int, batch: int, phase: str) -> None:
        counts[layer] += phase == "forward"

    assert len(measure(hooked(hook), pairs(1)[0], threads=1, budget=0.0)) == 3
    assert counts == [4, 4, 4]


def test_stack_optimizers_and_generators_stay_as_they_are() -> None:
    stack = hooked(nothing)
    stack[1].enc.b = nn.Sequential(Dropout(0.5), nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3))
    stack[1].optimizer.add_param_group({"params": list(stack[1].enc.b.parameters()), "name": "more"})
    train("sequential", stack, pairs(2))
    before, grad = snapshot(stack), [parameter.grad for parameter in stack.parameters()]
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    measure(stack, pairs(1)[0], threads=threads + 1)
    assert_equal(snapshot(stack), before)
    assert [parameter.grad for parameter in stack.parameters()] == grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_copy_of_a_layer_updates_its_own_weights() -> None:
    layer = hooked(nothing, layers=1)[0]
    twin = copy.deepcopy(layer)
    own = {id(parameter) for parameter in twin.parameters()}
    assert {id(parameter) for group in twin.optimizer.param_groups for parameter in group["params"]} == own


def test_threads_are_those_that_are_asked_for() -> None:
    seen: set[int] = set()
    measure(hooked(lambda *_: seen.add(torch.get_num_threads())), pairs(1)[0], threads=3)
    assert seen == {3}


def test_bytes_on_the_cpu_by_hand() -> None:
    """Weights, gradients and two moments of float32; a step count per tensor; and three batches of outputs."""
    stack = ALStack([AL(ENC(nn.Linear(4, 5), nn.Linear(5, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    (cost,) = measure(stack, (torch.zeros(7, 4), torch.zeros(7, 3)), threads=1)
    weights = 4 * 5 + 5 + 5 * 3 + 3 + 2 * (3 * 3 + 3)
    assert cost.bytes == 4 * (4 * weights + 8) + 3 * 4 * (7 * 5 + 7 * 3)


def test_targets_are_made_from_labels() -> None:
    layer = hooked(nothing, layers=1)[0]
    stack = ALStack([layer], target=lambda labels: torch.eye(3)[labels])
    assert measure(stack, (torch.zeros(2, 4), torch.tensor([0, 2])), threads=1)[0].forward > 0
    assert OneHot(3)(torch.tensor([1]))[1].tolist() == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_bytes_are_what_the_allocator_saw() -> None:
    stack = ALStack([AL(ENC(nn.Linear(512, 512), nn.Linear(512, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    batch = torch.zeros(64, 512), torch.zeros(64, 3)
    (cost,) = module.measure(stack, batch, threads=1, device=torch.device("cuda:0"))
    assert cost.bytes > 4 * 4 * 512 * 512
    assert stack[0].device.type == "cpu"
