"""Device lists: which layer goes where, and one line with the remedy for a list that does not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC, ALStack, PlacementError
from ALPackage import devices as placement
from ALPackage.devices import available_devices, core_share, local_layers, own_cores, resolve, set_device


def layer() -> AL:
    """Return a small layer."""
    return AL(ENC(nn.Linear(2, 2), nn.Linear(2, 2)), AE(nn.Linear(2, 2), nn.Linear(2, 2)))


class Custom(nn.Module):
    """A user's own module, whose AL layers lie at several depths."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.zeta = layer()
        self.group = nn.ModuleDict({"b": nn.ModuleList([layer(), nn.Linear(2, 2), layer()]), "a": layer()})
        self.alpha = layer()
        self.again = self.zeta

    def in_order(self) -> list[AL]:
        """Return the layers as they were registered."""
        inner = self.group["b"]
        return [self.zeta, inner[0], inner[2], self.group["a"], self.alpha]  # type: ignore[index,list-item]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Pretend that the machine has as many GPUs as the test asks for."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make "meta", a device that every machine can move to, one of the machine's devices."""
    monkeypatch.setattr(placement, "available_devices", lambda: ["cpu", "meta:0"])


@pytest.mark.parametrize(
    ("gpus", "layers", "spread"),
    [
        (0, 4, ["cpu"] * 4),
        (1, 4, ["cuda:0"] * 4),
        (2, 4, ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        (4, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (8, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (3, 5, ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:2"]),
        (2, 5, ["cuda:0", "cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        (4, 5, ["cuda:0", "cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (2, 1, ["cuda:0"]),
    ],
    indirect=["gpus"],
)
def test_auto_spreads_the_layers_in_contiguous_runs(gpus: int, layers: int, spread: list[str]) -> None:
    """Guards a bug: nothing ran without four GPUs."""
    assert [str(device) for device in resolve("auto", layers)] == spread


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_names_are_resolved_to_devices_with_an_index(gpus: int) -> None:
    assert [str(d) for d in resolve(["cpu", "cuda", "cuda:1", "cpu:0"], 4)] == ["cpu", "cuda:0", "cuda:1", "cpu:0"]
    assert [str(d) for d in resolve(("cuda:1",), 1)] == ["cuda:1"]
    assert available_devices()[:3] == ["cpu", "cuda:0", "cuda:1"]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_list_of_the_wrong_length_says_both_numbers(count: int) -> None:
    """Guards a bug: the shipped config failed its own assert about the list."""
    with pytest.raises(PlacementError, match=rf"\b{count} entries.*\b4 layers") as caught:
        resolve(["cpu"] * count, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpus", [2], indirect=True)
@pytest.mark.parametrize("name", ["cuda:2", "cuda:99", "xpu:0", "meta"])
def test_an_absent_device_says_which_exist(name: str, gpus: int) -> None:
    with pytest.raises(PlacementError, match=rf"'{name}'.*cpu, cuda:0, cuda:1") as caught:
        resolve(["cpu", name], 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "0", None])
def test_what_is_no_device_says_which_are(name: str, gpus: int) -> None:
    with pytest.raises(PlacementError, match=r"this machine has cpu") as caught:
        resolve([name], 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["cpu", "Auto", "all"])
def test_a_word_other_than_auto_is_refused(word: str) -> None:
    with pytest.raises(PlacementError, match='"auto" or a list'):
        resolve(word, 3)


def test_placement_errors_are_value_errors() -> None:
    assert issubclass(PlacementError, ValueError)


def test_al_layers_are_found_in_registration_order_and_once() -> None:
    model = Custom()
    found = local_layers(model)
    assert len(found) == 5
    assert all(a is b for a, b in zip(found, model.in_order(), strict=True))


@pytest.mark.usefixtures("meta")
def test_set_device_moves_each_layer_to_its_entry() -> None:
    model = Custom()
    where = set_device(model, ["meta", "cpu", "meta", "cpu", "meta"])
    assert [d.type for d in where] == ["meta", "cpu", "meta", "cpu", "meta"]
    assert [one.device.type for one in model.in_order()] == ["meta", "cpu", "meta", "cpu", "meta"]
    assert model.norm.weight.device.type == "cpu"


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("devices", [["meta"] * 4, ["meta"] * 6, ["meta"] * 4 + ["cuda:77"], ["meta"] * 4 + ["gpu"]])
def test_nothing_is_moved_where_the_list_does_not_fit(devices: list[str]) -> None:
    model = Custom()
    with pytest.raises(PlacementError):
        set_device(model, devices)
    assert {one.device.type for one in model.in_order()} == {"cpu"}


@pytest.mark.usefixtures("meta")
def test_a_stack_places_its_layers() -> None:
    stack = ALStack([layer(), layer()])
    stack.set_device(["cpu", "meta"])
    assert [device.type for device in stack.devices] == ["cpu", "meta"]
    with pytest.raises(PlacementError, match=r"3 entries.*2 layers"):
        stack.set_device(["cpu"] * 3)


def test_a_stack_remembers_its_workers() -> None:
    """Guards a bug: the K of "cpu:K" was dropped, so that every layer got a worker of its own."""
    stack = ALStack([layer() for _ in range(4)])
    assert [str(place) for place in stack.placement] == ["cpu"] * 4
    where = stack.set_device(["cpu:0", "cpu:0", "cpu", "cpu:7"])
    assert stack.placement == where
    assert [str(place) for place in stack.placement] == ["cpu:0", "cpu:0", "cpu", "cpu:7"]
    assert {str(device) for device in stack.devices} == {"cpu"}
    assert [str(one.placement) for one in copy.deepcopy(stack)] == ["cpu:0", "cpu:0", "cpu", "cpu:7"]
    stack.set_device(["cpu:1"] * 4)
    assert [str(place) for place in stack.placement] == ["cpu:1"] * 4


def test_a_layer_that_moves_on_its_own_forgets_its_worker() -> None:
    one = layer()
    one.assign(torch.device("cpu", 3))
    assert str(one.placement) == "cpu:3"
    assert str(one.device) == "cpu"
    one.to("meta")
    assert one.placement == one.device == torch.device("meta")
    one.assign(torch.device("meta"))
    assert one.placement.type == "meta"


def test_a_module_without_al_layers_is_refused() -> None:
    with pytest.raises(PlacementError, match="Linear has no AL layer"):
        set_device(nn.Linear(2, 2), "auto")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_uses_the_gpu_and_the_moments_move_along() -> None:
    stack = ALStack([layer(), layer()])
    for device in (["cpu"] * 2, "auto"):
        stack.set_device(device)
        stack(torch.randn(3, 2), torch.randn(3, 2))
        stack.backward_and_update()
    assert {device.type for device in stack.devices} == {"cuda"}
    assert all(state["exp_avg"].is_cuda for one in stack for state in one.optimizer.state.values())


@pytest.mark.parametrize(("processes", "cores", "share"), [("1", 6, 6.0), ("4", 1, 1.5), ("8", 1, 0.75), ("?", 6, 6.0)])
def test_processes_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, processes: str, cores: int, share: float
) -> None:
    monkeypatch.setattr(placement, "available_cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert (own_cores(), core_share()) == (cores, share)
