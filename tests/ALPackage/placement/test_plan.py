"""A plan says what its cut promises, by hand."""

from __future__ import annotations

import pytest
import torch

from ALPackage import ALStack, PlacementError
from ALPackage.devices import candidates, resolve, stage_sizes
from ALPackage.placement import plan
from ALPackage.placement.cost import LayerCost
from ALPackage.placement.plan import Plan

from ..hooked import hooked, nothing

CPUS = [torch.device("cpu", index) for index in range(4)]
VGG = [LayerCost(name, ms / 3e3, ms / 1.5e3, 2**20) for name, ms in zip("abcd", (150, 120, 30, 10), strict=True)]


def test_numbers_by_hand() -> None:
    made = plan(VGG, CPUS[:2])
    assert made.sizes == (1, 3)
    assert made.stage_times == pytest.approx([0.150, 0.160])
    assert made.ceiling == pytest.approx(310 / 160)
    assert made.bottleneck == ["b", "c", "d"]
    assert [str(device) for device in made.per_layer_devices] == ["cpu:0", "cpu:1", "cpu:1", "cpu:1"]


def test_devices_that_do_not_help_are_not_used() -> None:
    made = plan(VGG, CPUS)
    assert len(made.devices) == len(made.sizes) == 3
    assert made.ceiling == pytest.approx(310 / 150)
    assert plan([LayerCost("a", 0.0, 0.0)], CPUS).ceiling == 1.0


def test_the_text_says_cost_cut_ceiling_and_what_one_more_device_would_bring() -> None:
    lines = plan(VGG, CPUS[:2]).text().splitlines()
    assert len(lines) == 1 + 4 + 2
    assert lines[1].split() == ["a", "50.0", "ms", "100.0", "ms", "1", "MiB", "cpu:0"]
    assert lines[-2] == "estimated ceiling 1.94x over one device; the busiest stage is b, c, d"
    assert lines[-1] == "one more device would bring 2.07x"
    assert plan(VGG, CPUS).text().splitlines()[-1] == "one more device would bring nothing: a alone sets the pace"
    alone = plan(VGG[:1], CPUS).text().splitlines()[-1]
    assert alone == "one more device would bring nothing: every layer has one"


def test_json_holds_what_the_text_says() -> None:
    found = plan(VGG, CPUS[:2]).to_json()
    assert found["stages"] == [1, 3]
    assert found["ceiling"] == 1.9375
    assert found["layers"][0] == {
        "name": "a",
        "forward_ms": 50.0,
        "backward_ms": 100.0,
        "bytes": 2**20,
        "device": "cpu:0",
    }


def test_a_plan_obeys_memory() -> None:
    made = plan(VGG, CPUS[:2], capacity=[3 * 2**20, 2**20])
    assert made.sizes == (3, 1)
    with pytest.raises(PlacementError, match="no cut fits"):
        plan(VGG, CPUS[:2], capacity=[2**20, 2**20])


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["cpu"] * 3, [1, 1, 1]),
        (["cpu:0", "cpu:0", "cpu:1"], [2, 1]),
        (["cpu:0", "cpu:1", "cpu:0"], [1, 1, 1]),
        (["cpu:7", "cpu", "cpu"], [1, 1, 1]),
        (["cpu:3"] * 4, [4]),
    ],
)
def test_neighbors_on_one_device_are_a_stage(names: list[str], sizes: list[int]) -> None:
    assert stage_sizes(resolve(names, len(names))) == sizes


def test_gpus_and_cpu_in_one_list() -> None:
    devices = [torch.device(name) for name in ("cpu", "cuda:0", "cuda:0", "cuda:1", "cpu", "cpu")]
    assert stage_sizes(devices) == [1, 2, 1, 1, 1]


def test_layers_on_cpu_workers_are_on_the_cpu() -> None:
    stack = hooked(nothing)
    assert isinstance(stack, ALStack)
    placed = stack.set_device(["cpu:0", "cpu:1", "cpu:1"])
    assert [str(device) for device in placed] == ["cpu:0", "cpu:1", "cpu:1"]
    assert {str(parameter.device) for parameter in stack.parameters()} == {"cpu"}


@pytest.mark.parametrize(
    ("gpus", "workers", "layers", "expected"),
    [
        (0, 2, 4, ["cpu:0", "cpu:1"]),
        (0, 9, 3, ["cpu:0", "cpu:1", "cpu:2"]),
        (0, None, 4, ["cpu:0", "cpu:1", "cpu:2"]),
        (0, None, 2, ["cpu:0", "cpu:1"]),
        (2, None, 4, ["cuda:0", "cuda:1"]),
        (8, None, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (2, 1, 4, ["cpu:0"]),
    ],
)
def test_candidates(
    gpus: int, workers: int | None, layers: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("ALPackage.devices.available_cores", lambda: 3)
    assert [str(device) for device in candidates(workers, layers)] == expected


def test_an_explicit_cut_is_reported_as_it_is() -> None:
    made = Plan(tuple(VGG), (2, 2), tuple(CPUS[:2]))
    assert made.ceiling == pytest.approx(310 / 270)
    assert made.text().splitlines()[-1] == "one more device would bring 2.07x"
