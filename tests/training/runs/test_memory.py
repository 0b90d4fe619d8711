"""Peak memory: it sees what was allocated inside, forgets what came before, and says when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from training.runs import memory
from training.runs.memory import PeakMemory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the process's peak can be forgotten on Linux only")


@LINUX
def test_it_sees_an_allocation_that_is_gone_again() -> None:
    with PeakMemory() as quiet:
        pass
    with PeakMemory(["cpu"]) as busy:
        torch.ones(50_000_000)  # 200 MB
        inside = busy.mb
    assert quiet.mb is not None
    assert busy.mb is not None
    assert inside is not None
    assert busy.mb - quiet.mb > 150
    assert inside == pytest.approx(busy.mb, rel=0.05)


@LINUX
def test_it_forgets_what_came_before() -> None:
    with PeakMemory() as before:
        torch.ones(50_000_000)
    with PeakMemory() as after:
        pass
    if not after.exact:
        pytest.skip("this system does not let a process forget its peak")
    assert before.mb is not None
    assert after.mb is not None
    assert after.mb < before.mb - 150


def test_it_measures_when_the_block_fails() -> None:
    peak = PeakMemory()
    with pytest.raises(KeyboardInterrupt), peak:
        raise KeyboardInterrupt
    assert peak.mb is not None
    assert peak.mb > 10
    assert peak.mb == peak.mb


def test_without_linux_files_it_asks_the_portable_way_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resource")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "no" / "file")
    with PeakMemory() as peak:
        pass
    assert not peak.exact
    assert peak.mb is not None
    assert peak.mb > 10


def test_where_nothing_can_be_asked_there_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "no" / "file")
    monkeypatch.setitem(sys.modules, "resource", None)
    with PeakMemory() as peak:
        pass
    assert peak.mb is None


def test_cuda_devices_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[str] = []
    used = {"cuda:0": 3_000_000, "cuda:1": 4_500_000}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: reset.append(str(device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: used[str(device)])
    with PeakMemory(["cuda:0", "cpu", "cuda:1", "cuda:0"]) as peak:
        pass
    assert reset == ["cuda:0", "cuda:1"]
    assert peak.mb == 7.5
    assert peak.exact


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peak() -> None:
    with PeakMemory(["cuda:0"]) as peak:
        torch.ones(25_000_000, device="cuda:0")
    assert peak.mb is not None
    assert peak.mb >= 100
