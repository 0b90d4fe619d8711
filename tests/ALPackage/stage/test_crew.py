"""Which workers there are for a placement, and what no run of theirs can beat."""

import pytest
import torch

from ALPackage.stage import crew as module
from ALPackage.stage.crew import bound, crew


def placed(*names: str) -> list[torch.device]:
    return [torch.device(name) for name in names]


def layers(*names: str, **options: int) -> dict[str, tuple[int, ...]]:
    return {member.name: member.layers for member in crew(placed(*names), **options)}


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_cores", lambda: 4)


def test_every_cpu_worker_may_run_every_free_layer() -> None:
    assert layers("cpu", "cpu", "cpu", workers=2) == {"cpu:0": (0, 1, 2), "cpu:1": (0, 1, 2)}


def test_by_default_there_is_a_worker_per_share_of_the_cores_and_none_that_no_layer_needs() -> None:
    assert list(layers(*["cpu"] * 6)) == ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]
    assert list(layers(*["cpu"] * 6, threads=2)) == ["cpu:0", "cpu:1"]
    assert list(layers(*["cpu"] * 6, threads=9)) == ["cpu:0"]
    assert list(layers("cpu", "cpu")) == ["cpu:0", "cpu:1"]


def test_more_workers_than_layers_can_be_asked_for() -> None:
    assert list(layers("cpu", workers=3)) == ["cpu:0", "cpu:1", "cpu:2"]


def test_a_tie_makes_a_worker_and_the_lowest_other_numbers_fill_up() -> None:
    assert layers("cpu:7", "cpu", "cpu:7", workers=2) == {"cpu:0": (1,), "cpu:7": (0, 1, 2)}
    assert layers("cpu:0", "cpu", "cpu:1", workers=2) == {"cpu:0": (0, 1), "cpu:1": (1, 2)}


def test_where_every_layer_is_tied_there_are_no_other_workers() -> None:
    assert layers("cpu:1", "cpu:3", "cpu:3") == {"cpu:1": (0,), "cpu:3": (1, 2)}


def test_a_gpu_has_a_worker_per_stream_and_they_share_its_layers() -> None:
    assert layers("cuda:1", "cpu", "cuda:0", "cuda:1", workers=1) == {"cpu:0": (1,), "cuda:1": (0, 3), "cuda:0": (2,)}
    assert layers("cuda:0", "cuda:0", streams_per_device=2) == {"cuda:0 stream 0": (0, 1), "cuda:0 stream 1": (0, 1)}


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1.5}, {"streams_per_device": 0}])
def test_a_number_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got .*; expected a whole number of at least 1"):
        crew(placed("cpu"), **options)


def test_more_ties_than_workers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"workers: got 1, but layers are tied to 2 of them \(cpu:0, cpu:2\)"):
        crew(placed("cpu:0", "cpu:2"), workers=1)


def test_shared_layers_are_bound_by_the_mean_or_by_the_largest_of_them() -> None:
    two = crew(placed(*["cpu"] * 4), workers=2)
    assert bound([4.0, 16.0, 9.0, 11.0], two) == 20.0
    assert bound([1.0, 5.0, 1.0, 1.0], two) == 5.0
    assert bound([1.0, 1.0, 1.0, 1.0], crew(placed(*["cpu"] * 4), workers=4), at_once=2.0) == 2.0


def test_ties_and_devices_bound_too() -> None:
    assert bound([3.0, 3.0, 1.0, 1.0], crew(placed("cpu:0", "cpu:0", "cpu", "cpu"), workers=2)) == 6.0
    assert bound([3.0, 1.0, 1.0, 4.0], crew(placed("cpu:0", "cpu", "cpu", "cpu"), workers=2)) == 4.5
    assert bound([3.0, 1.0, 2.0], crew(placed("cuda:0", "cuda:1", "cuda:0"))) == 5.0
    assert bound([3.0, 1.0, 2.0], crew(placed(*["cuda:0"] * 3), streams_per_device=3)) == 3.0
