"""Where a run's layers go: the config's list is obeyed, "auto" follows the costs, and a mistake names its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ALPackage import AL, ALStack
from ALPackage.placement.cost import LayerCost
from tests.training.specs import make_spec
from training.config.schema import VisionConfig
from training.errors import ConfigError
from training.runs import placement as placing
from training.runs.placement import Placement, place
from training.runs.resolve import find_machine

from ...ALPackage.hooked import assert_equal, hooked, nothing, pairs, snapshot

MS = (4.0, 3.0, 2.0, 1.0)
BATCH = pairs(1)[0]
#: Seconds per hand-over between two devices.
HAND_OVER = {0: 0.0}
Asked = list[tuple[Any, int, list[str], list[str]]]


@pytest.fixture
def stack() -> ALStack:
    return hooked(nothing, layers=4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Let the layers cost 4, 3, 2 and 1 ms, on a machine of 3 cores; return the (batch, threads, devices) asked for."""
    calls: Asked = []

    def measure(
        stack: ALStack, batch: Any, *, threads: int, devices: list[torch.device], receivers: list[torch.device]
    ) -> list[LayerCost]:
        calls.append((batch, threads, [str(device) for device in devices], [str(device) for device in receivers]))
        costs = [LayerCost(name, ms / 3e3, ms / 1.5e3, 2**30) for name, ms in zip(stack.names, MS, strict=True)]
        apart = [there != here for there, here in zip(receivers, devices, strict=True)]
        return [replace(cost, hand_over=HAND_OVER[0] * gone) for cost, gone in zip(costs, apart, strict=True)]

    monkeypatch.setattr(placing, "measure", measure)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for module in ("ALPackage.stage.crew", "training.runs.placement"):
        monkeypatch.setattr(f"{module}.own_cores", lambda: 3)
    return calls


@pytest.mark.parametrize(
    ("workers", "threads", "count", "ceiling"),
    [
        (1, 1, 1, 1.0),
        (2, 1, 2, 2.0),
        (2, 2, 2, 3 / 2),  # two workers of two threads each have three cores
        (2, 7, 2, 1.0),
        (None, 1, 3, 10 / 4),  # the first layer sets the pace
        (None, 2, 1, 1.0),
        (7, 1, 7, 10 / 4),
    ],
)
def test_auto_on_the_cpu_lets_all_workers_share_all_layers(
    workers: int | None, threads: int, count: int, ceiling: float, stack: ALStack, asked: Asked
) -> None:
    placed = place(stack, BATCH, make_spec(workers=workers, threads=threads))
    assert placed.names == ["cpu"] * 4
    assert placed.plan is not None
    assert [(worker.name, worker.layers) for worker in placed.plan.workers] == [
        (f"cpu:{number}", (0, 1, 2, 3)) for number in range(count)
    ]
    assert placed.plan.ceiling == pytest.approx(ceiling)
    assert asked == [(BATCH, threads, ["cpu"] * 4, ["cpu"] * 4)]


def test_al_fm_has_a_thread_for_every_layer(stack: ALStack, asked: Asked) -> None:
    placed = place(stack, BATCH, make_spec(schedule="al-fm", workers=2))
    assert placed.plan is not None
    assert [worker.layers for worker in placed.plan.workers] == [(0,), (1,), (2,), (3,)]
    assert placed.plan.ceiling == pytest.approx(10 / 4)


def test_the_sequential_schedule_needs_one_device_and_no_measuring(
    stack: ALStack, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for workers in (None, 3):
        placed = place(stack, BATCH, make_spec(schedule="sequential", workers=workers))
        assert (placed.names, placed.plan) == (["cpu"] * 4, None)
    given = make_spec(schedule="sequential", devices=("cpu:0", "cpu:0", "cpu:1", "cpu"))
    placed = place(stack, BATCH, given)
    assert (placed.names, placed.plan) == (["cpu:0", "cpu:0", "cpu:1", "cpu"], None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place(stack, BATCH, make_spec(schedule="sequential")).names == ["cuda:0"] * 4
    assert asked == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    plan = place(stack, BATCH, make_spec(schedule="sequential"), always=True).plan
    assert plan is not None
    assert plan.ceiling == 1.0


@pytest.mark.parametrize(
    ("devices", "workers", "ceiling", "crew"),
    [
        (["cpu:0", "cpu:0", "cpu:1", "cpu:1"], None, 10 / 7, {"cpu:0": (0, 1), "cpu:1": (2, 3)}),
        (["cpu"] * 4, 1, 1.0, {"cpu:0": (0, 1, 2, 3)}),
        (["cpu:3"] * 4, 2, 1.0, {"cpu:3": (0, 1, 2, 3)}),
        (["cpu:1", "cpu", "cpu:1", "cpu:1"], 2, 10 / 7, {"cpu:0": (1,), "cpu:1": (0, 1, 2, 3)}),
    ],
)
def test_a_list_is_obeyed_and_its_plan_says_what_to_expect(
    devices: list[str], workers: int | None, ceiling: float, crew: Any, stack: ALStack, asked: Asked
) -> None:
    placed = place(stack, BATCH, make_spec(devices=tuple(devices), workers=workers))
    assert placed.names == devices
    assert placed.plan is not None
    assert [str(device) for device in placed.plan.devices] == devices
    assert {worker.name: worker.layers for worker in placed.plan.workers} == crew
    assert placed.plan.ceiling == pytest.approx(ceiling)
    assert asked == [(BATCH, 1, devices, [*devices[1:], devices[-1]])], "each layer where it will be"


def test_auto_on_gpus_is_the_best_assignment_and_streams_share_a_gpu(
    stack: ALStack, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(placing, "capacities", lambda devices: [2**40] * len(devices))
    placed = place(stack, BATCH, make_spec(streams_per_device=2))
    assert placed.names == ["cuda:0", "cuda:1", "cuda:1", "cuda:0"], "4 + 1 and 3 + 2"
    assert asked == [(BATCH, 1, ["cuda:0"] * 4, ["cuda:1"] * 4)]
    assert placed.plan is not None
    assert [worker.name for worker in placed.plan.workers][:2] == ["cuda:0 stream 0", "cuda:0 stream 1"]
    monkeypatch.setitem(HAND_OVER, 0, 0.002)
    assert place(stack, BATCH, make_spec()).names == ["cuda:0"] * 2 + ["cuda:1"] * 2, "a mix would have two hand-overs"
    assert place(stack, BATCH, make_spec(workers=2)).names == ["cpu"] * 4, "a number of workers asks for the CPU"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert place(stack, BATCH, make_spec()).names == ["cuda:0"] * 4


def test_layers_that_do_not_fit_the_gpus_are_one_line_with_the_key(
    stack: ALStack, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [3 * 2**30, 2**30]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(placing, "capacities", lambda devices: free[: len(devices)])
    placed = place(stack, BATCH, make_spec())
    assert placed.names == ["cuda:1"] + ["cuda:0"] * 3  # by the costs alone it would be two and two
    free[0] = 2**30
    with pytest.raises(
        ConfigError, match=r"^al_gpu_list: the layers need 4\.00 GiB.* no cut fits devices with 1\.00, 1\.00 GiB"
    ):
        place(stack, BATCH, make_spec())


def test_real_costs_leave_the_stack_and_the_random_numbers_as_they_were(stack: ALStack) -> None:
    before, numbers = snapshot(stack), torch.get_rng_state()
    placed = place(stack, BATCH, make_spec(workers=2))
    assert_equal(snapshot(stack), before)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert placed.plan is not None
    assert [cost.name for cost in placed.plan.costs] == stack.names
    assert all(cost.forward > 0 and cost.backward > 0 and cost.bytes > 0 for cost in placed.plan.costs)
    assert 1.0 <= placed.plan.ceiling <= len(placed.plan.workers) == 2


@pytest.mark.parametrize(
    ("method", "devices", "message"),
    [
        ("al", ["cpu", "cpu", "cpu", "cuda:9"], "al_gpu_list: 'cuda:9' is not there; this machine has cpu"),
        ("al", [0, 0, 1, 2], "al_gpu_list: 'cuda:0', 'cuda:1' and 'cuda:2' are not there; this machine has cpu"),
        ("bp", ["cpu"] * 4 + ["gpu"], "bp_gpu_list: 'gpu' is not a device name; this machine has cpu"),
        (
            "bp",
            ["a", "b", "a", "cuda:1", "cuda:2"],
            "bp_gpu_list: 'a' and 'b' are not device names; 'cuda:1' and 'cuda:2' are not there; this machine has cpu",
        ),
    ],
)
def test_a_device_that_is_not_there_is_one_line_with_the_key(
    method: Any, devices: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = VisionConfig.model_validate({f"{method}_gpu_list": devices})
    with pytest.raises(ConfigError) as caught:
        find_machine(config, "vgg", method)
    assert str(caught.value) == f"{message}: give those, or --set {method}_gpu_list=auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 10)
    lists = {"vgg": ["cpu", "cpu:7", "cuda", "cuda:9"]}
    for given in (lists, lists["vgg"]):
        found = find_machine(VisionConfig(al_gpu_list=given), "vgg", "al")
        assert found.devices == ("cpu", "cpu:7", "cuda", "cuda:9")
        assert len(found.layers) == 4
    assert find_machine(VisionConfig(), "vgg", "al").devices is None


@pytest.mark.parametrize("devices", [None, ("cpu:0", "cpu:0", "cpu:1", "cpu:1")])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_costs_are_measured_with_the_arithmetic_of_the_run(
    precision: str, dtype: torch.dtype, devices: Any, stack: ALStack
) -> None:
    """Guards a fault: the plan of a run in bfloat16 was that of a run in float32."""
    types: set[torch.dtype] = set()
    original = AL.forward

    def forward(self: AL, x: Any, y: Any) -> Any:
        types.add((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
        return original(self, x, y)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AL, "forward", forward)
        place(stack, BATCH, make_spec(precision=precision, devices=devices))
    assert types == {dtype}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_mixed_list_every_layer_is_measured_on_its_own_device(stack: ALStack) -> None:
    placed = place(stack, BATCH, make_spec(devices=("cpu", "cpu", "cuda:0", "cuda:0")))
    assert placed.names == ["cpu", "cpu", "cuda:0", "cuda:0"]
    assert placed.plan is not None


class Two:
    """Two processes: the second has a GPU. `bytes_per_second`: from the first to the second."""

    devices = ("cpu", "cuda:1")

    def __init__(self, bytes_per_second: float = 1e12) -> None:
        self.bytes_per_second = bytes_per_second

    def speed(self) -> float:
        return self.bytes_per_second


def over_two(stack: ALStack, speed: float = 1e12, **changes: Any) -> Placement:
    return place(stack, BATCH, make_spec(world=2, threads=3, **changes), Two(speed))  # type: ignore[arg-type]


def test_over_processes_the_cut_follows_the_costs_and_the_connection(
    stack: ALStack, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = placing.measure
    sent = (4000, 4000, 10, 0)

    def with_sizes(*arguments: Any, **options: Any) -> list[LayerCost]:
        return [replace(cost, sent=size) for cost, size in zip(measure(*arguments, **options), sent, strict=True)]

    monkeypatch.setattr(placing, "measure", with_sizes)
    placed = over_two(stack)
    assert placed.ranks == (0, 1, 1, 1), "4 ms and 6 ms"
    assert placed.names == ["rank0", "rank1:cuda:1", "rank1:cuda:1", "rank1:cuda:1"]
    assert (placed.here(0), placed.here(1)) == (["cpu"] * 4, ["cpu", "cuda:1", "cuda:1", "cuda:1"])
    assert placed.plan is not None
    assert [(one.name, one.layers) for one in placed.plan.workers] == [
        ("rank0 cpu:0", (0,)),
        ("rank1 cuda:1", (1, 2, 3)),
    ]
    assert placed.plan.ceiling == pytest.approx(10 / 6)
    assert placed.plan.to_json()["layers"][0]["sent_bytes"] == 4000
    assert "rank1:cuda:1" in placed.plan.text()
    assert over_two(stack, speed=4e5).ranks == (0, 0, 0, 1), "10 ms for 4000 bytes"


def test_over_processes_a_list_is_obeyed(stack: ALStack, asked: Asked) -> None:
    placed = over_two(stack, ranks=(0, 0, 0, 1), devices=("auto", "cpu:3", "auto", "cuda:7"))
    assert placed.names == ["rank0", "rank0:cpu:3", "rank0", "rank1:cuda:7"]
    assert placed.here(0) == ["cpu", "cpu:3", "cpu", "cpu"]


def test_a_run_that_goes_on_leaves_replicas_where_they_were(stack: ALStack, asked: Asked) -> None:
    """Guards a bug: costs were measured anew, other layers had replicas, and the numbers were others."""
    three, before = Two(), ["rank0-1", "rank0-1", "rank0-1", "rank2"]
    three.devices = ("cpu", "cpu", "cpu")  # type: ignore[assignment]

    def ranks_with(replicas: list[int] | None, devices: list[str]) -> tuple[int, ...] | None:
        spec = make_spec(world=3, threads=3, stage_replicas=replicas)
        return place(stack, BATCH, spec, three, before=devices).ranks  # type: ignore[arg-type]

    assert ranks_with([2, 1], []) == (0, 0, 2, 2), "3.5 ms and 3 ms"
    assert ranks_with([2, 1], before) == (0, 0, 0, 2)
    assert ranks_with([1, 2], before) == ranks_with([1, 2], []), "another division"
    assert ranks_with([2, 1], ["cpu"] * 4) == (0, 0, 2, 2)
    assert ranks_with(None, ["rank0", "rank1", "rank2", "rank2"]) == ranks_with(None, []), "it changes no number"


def test_a_run_that_goes_on_is_rounded_where_it_was(stack: ALStack, asked: Asked) -> None:
    """Guards a bug: the cut was measured anew, and other tensors were rounded, by the clock."""
    three = Two()
    three.devices = ("cpu", "cpu", "cpu")  # type: ignore[assignment]
    before = ["rank0", "rank0", "rank1", "rank2"]

    def ranks_with(wire: str, devices: list[str]) -> tuple[int, ...] | None:
        spec = make_spec(world=3, threads=3, wire=wire)
        return place(stack, BATCH, spec, three, before=devices).ranks  # type: ignore[arg-type]

    assert ranks_with("bf16", []) != (0, 0, 1, 2)
    assert ranks_with("bf16", before) == (0, 0, 1, 2)
    assert ranks_with("bf16", ["rank0", "rank0", "rank1", "rank1"]) == ranks_with("bf16", []), "of two processes"
    assert ranks_with("compressed", before) == ranks_with("compressed", [])
