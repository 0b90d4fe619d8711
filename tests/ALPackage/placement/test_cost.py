"""Layers are measured on copies: the costs are those of the layers, and nothing else has changed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from ALPackage.devices import capacities
from ALPackage.objectives.codes import OneHot
from ALPackage.placement import cost as module
from ALPackage.placement.cost import HELD, copy_time, measure
from ALPackage.randomness import Dropout
from ALPackage.stage.transfer import SLOTS

from ..hooked import assert_equal, hooked, nothing, pairs, snapshot, train

GPU = torch.device("cuda", 0)


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


class Watched(nn.Linear):
    """A linear f that calls `watch(layer, output)` in every forward pass, in copies too."""

    def __init__(self, layer: int, watch: Callable[[int, Tensor], None]) -> None:
        super().__init__(4, 4)
        self.layer = layer
        self.watch = watch

    def forward(self, x: Tensor) -> Tensor:
        """Watch the output."""
        out = super().forward(x)
        self.watch(self.layer, out)
        return out


def watched(watch: Callable[[int, Tensor], None], layers: int = 3) -> ALStack:
    """Return a stack whose layers call `watch`."""
    return ALStack(
        AL(ENC(Watched(number, watch), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
        for number in range(layers)
    )


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

    def watch(layer: int, out: Tensor) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.3 if calls in (1, 2, 4) else 0.0)

    assert measure(watched(watch, layers=1), pairs(1)[0], threads=1, repeats=5)[0].forward < 0.1
    assert calls == 2 + 5


def test_once_the_budget_is_spent_each_layer_takes_four_steps() -> None:
    counts = [0, 0, 0]

    def watch(layer: int, out: Tensor) -> None:
        counts[layer] += 1

    assert len(measure(watched(watch), pairs(1)[0], threads=1, budget=0.0)) == 3
    assert counts == [4, 4, 4]


def test_stack_optimizers_and_generators_stay_as_they_are() -> None:
    stack = hooked(nothing)
    stack[1].enc.b = nn.Sequential(Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3))
    stack[1].optimizer.add_param_group({"params": list(stack[1].enc.b.parameters()), "name": "more"})
    stack[1].reset_optimizer()
    train("sequential", stack, pairs(2))
    stack[1].enc.b.append(nn.Dropout(0.5))
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
    measure(watched(lambda *_: seen.add(torch.get_num_threads())), pairs(1)[0], threads=3)
    assert seen == {3}


def test_the_callers_autocast_holds_as_in_a_run() -> None:
    """Guards a bug: a run in bfloat16 was planned with the costs of float32."""
    seen: list[torch.dtype] = []
    stack = watched(lambda _, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measure(stack, pairs(1)[0], threads=1, budget=0.0)
    assert set(seen) == {torch.bfloat16}
    del seen[:]
    measure(stack, pairs(1)[0], threads=1, budget=0.0)
    assert set(seen) == {torch.float32}


def test_every_layer_is_measured_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: with a list of devices all layers were measured on the first of them."""
    where: list[str] = []
    step = module._step

    def recorded(layer: Any, name: str, seed: int, x: Any, y: Any, device: torch.device, *rest: Any) -> Any:
        where.append(f"{name} {device}")
        return step(layer, name, seed, x, y, device, *rest)

    monkeypatch.setattr(module, "_step", recorded)
    stack = hooked(nothing)
    stack[1].to("meta")
    devices = [torch.device("cpu"), torch.device("meta"), torch.device("meta")]
    measure(stack, pairs(1)[0], threads=1, budget=0.0, devices=devices)
    assert list(dict.fromkeys(where)) == ["layer_1 cpu", "layer_2 meta", "layer_3 meta"]
    del where[:]
    measure(hooked(nothing), pairs(1)[0], threads=1, budget=0.0, devices=[torch.device("cpu", 3)] * 3)
    assert list(dict.fromkeys(where)) == ["layer_1 cpu", "layer_2 cpu", "layer_3 cpu"], "a worker is no device of torch"


def test_a_list_of_devices_has_one_for_every_layer() -> None:
    with pytest.raises(ValueError, match="got 1 devices for 3 layers"):
        measure(hooked(nothing), pairs(1)[0], threads=1, devices=[torch.device("cpu")])


def test_a_hand_over_is_measured_where_the_device_changes() -> None:
    asked: list[tuple[int, str]] = []

    def copying(out: Any, device: torch.device) -> float:
        asked.append((out[0].shape[1], str(device)))
        return 0.25

    receivers = [torch.device("meta"), torch.device("cpu", 1), torch.device("meta")]
    costs = measure(hooked(nothing), pairs(1)[0], threads=1, budget=0.0, receivers=receivers, copy_time=copying)
    assert asked == [(4, "meta"), (4, "cpu")]
    assert [cost.hand_over for cost in costs] == [0.25, 0.25, 0.0], "nobody receives what the last layer hands on"
    assert [cost.hand_over for cost in measure(hooked(nothing), pairs(1)[0], threads=1, budget=0.0)] == [0.0] * 3


def test_a_copy_takes_time_between_devices_alone() -> None:
    value = (torch.zeros(3), torch.zeros(3))
    assert copy_time(value, torch.device("cpu")) == 0.0
    assert copy_time(value, torch.device("meta")) > 0.0


def test_only_the_generators_of_devices_in_use_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: without a list torch opens a context on every GPU, and prints a long warning."""
    asked: list[Any] = []
    fork = torch.random.fork_rng

    def recorded(devices: Any = None, **options: Any) -> Any:
        asked.append(devices)
        return fork(devices=[], **options)

    monkeypatch.setattr(torch.random, "fork_rng", recorded)
    measure(hooked(nothing), pairs(1)[0], threads=1, budget=0.0)
    assert asked == [[]]


def test_bytes_on_the_cpu_by_hand() -> None:
    """Weights, gradients and two moments of float32; a step count per tensor; and three batches of outputs."""
    stack = ALStack([AL(ENC(nn.Linear(4, 5), nn.Linear(5, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    (cost,) = measure(stack, (torch.zeros(7, 4), torch.zeros(7, 3)), threads=1)
    weights = 4 * 5 + 5 + 5 * 3 + 3 + 2 * (3 * 3 + 3)
    assert cost.bytes == 4 * (4 * weights + 8) + 3 * 4 * (7 * 5 + 7 * 3)


def test_bytes_on_a_gpu_have_the_slots_and_the_batches_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: what a pipeline holds besides a layer's own step was left out on GPUs. "meta" plays the GPU."""
    monkeypatch.setattr(module, "_allocated", lambda device: 1000)
    monkeypatch.setattr(module, "_peak", lambda device: 5000)
    stack = ALStack([AL(ENC(nn.Linear(4, 5), nn.Linear(5, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    (cost,) = measure(stack, (torch.zeros(7, 4), torch.zeros(7, 3)), threads=1, devices=[torch.device("meta")])
    assert cost.bytes == 4000 + SLOTS * 4 * (7 * 4 + 7 * 3) + HELD * 4 * (7 * 5 + 7 * 3)


def test_what_the_allocator_has_cached_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: after measuring, models that fit were refused."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9999))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert capacities([GPU, GPU]) == [1500, 1500]
    assert capacities([torch.device("cpu", 0)]) is None


def test_targets_are_made_from_labels() -> None:
    layer = hooked(nothing, layers=1)[0]
    stack = ALStack([layer], target=lambda labels: torch.eye(3)[labels])
    assert measure(stack, (torch.zeros(2, 4), torch.tensor([0, 2])), threads=1)[0].forward > 0
    assert OneHot(3)(torch.tensor([1]))[1].tolist() == [1]


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@gpu
def test_on_a_gpu_the_bytes_are_at_least_what_the_allocator_saw() -> None:
    stack = ALStack([AL(ENC(nn.Linear(512, 512), nn.Linear(512, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    batch = torch.zeros(64, 512), torch.zeros(64, 3)
    (cost,) = measure(stack, batch, threads=1, devices=[GPU])
    assert cost.bytes > 4 * 4 * 512 * 512
    assert stack[0].device.type == "cpu"


@pytest.mark.gpu
@gpu
def test_on_a_gpu_measuring_leaves_the_capacity_as_it_was() -> None:
    stack = ALStack([AL(ENC(nn.Linear(4096, 4096), nn.Linear(4096, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])
    measure(stack, (torch.zeros(8, 4096), torch.zeros(8, 3)), threads=1, devices=[GPU], budget=0.0)
    first = capacities([GPU])
    measure(stack, (torch.zeros(8, 4096), torch.zeros(8, 3)), threads=1, devices=[GPU], budget=0.0)
    second = capacities([GPU])
    assert first is not None
    assert second is not None
    assert abs(first[0] - second[0]) < 64 * 2**20
    assert torch.cuda.memory_reserved(GPU) > 128 * 2**20, "nothing was cached, so nothing was tested"


@pytest.mark.gpu
@gpu
def test_on_a_gpu_autocast_holds_and_mixed_lists_are_measured_where_they_are() -> None:
    seen: list[tuple[str, torch.dtype]] = []
    stack = watched(lambda _, out: seen.append((out.device.type, out.dtype)), layers=2)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        measure(stack, pairs(1)[0], threads=1, budget=0.0, devices=[torch.device("cpu"), GPU])
    assert set(seen) == {("cpu", torch.float32), ("cuda", torch.bfloat16)}
