"""Disks that are full, read-only or gone: one line, exit code 2, and what was there is intact."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.storage.streams import exit_code
from training import experiment
from training.checkpoints.store import Store, checkpoint_folder
from training.runs.progress import ProgressBar

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")
COMMAND = "tinyImageNet vgg --method al --workers 1 --set width=0.05 --set train_batch_size=16 --set epochs=2"


def command(text: str, root: Path, out: Path) -> int:
    return experiment.main("vision", shlex.split(f"--data-root {root} --out {out} {COMMAND} {text}"))


def mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for one checkpoint and no more."""
    if shutil.which("mount") is None:
        pytest.skip("there is no command to mount a file system with")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-o", "size=16m")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_runs_full_keeps_what_was_written(
    disk: Path, datasets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = disk / "result"
    assert command("", datasets, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 100_000))
    capsys.readouterr()
    assert command("--seed 3", datasets, out) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path in before} == before
    (disk / "filler").unlink()
    assert command("--resume", datasets, out) == 0, "the run of before is still there"
    assert "finished before" in capsys.readouterr().out


def test_a_disk_that_can_only_be_read_is_refused_before_training(
    disk: Path, datasets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("the file system cannot be made read-only here")
    assert command("", datasets, disk / "result") == 2
    printed = capsys.readouterr()
    assert "Read-only file system" in printed.err
    assert printed.err.count("\n") == 1
    assert "epoch" not in printed.out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_before_training(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert command("", datasets, tmp_path / "closed" / "result") == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_behind_the_standard_output_is_one_line(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `python cvmain.py ... > log` on a disk that is full: the results, which are elsewhere, are complete."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert exit_code(lambda: command("", datasets, tmp_path)) == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    error = capsys.readouterr().err
    assert error.startswith("error: the standard output cannot be written (No space left on device)")
    assert error.count("\n") == 1
    assert len((tmp_path / "tinyImageNet_vgg_al.csv").read_text().splitlines()) == 3, "all epochs"


def test_a_folder_where_a_result_should_go_is_one_line(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tinyImageNet_vgg_al.json"
    path.mkdir()
    assert command("", datasets, tmp_path) == 2
    assert f"{path}: cannot be written (Is a directory)" in capsys.readouterr().err


def test_a_folder_that_vanishes_is_told_in_one_line(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result"
    call = ProgressBar.__call__

    def vanish(self: Any, losses: Any) -> None:
        call(self, losses)
        shutil.rmtree(out, ignore_errors=True)
        out.write_text("a file where the folder was")

    monkeypatch.setattr(ProgressBar, "__call__", vanish)
    assert command("", datasets, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(out) in error


def test_a_limit_on_the_size_of_files_is_told_in_one_line_and_the_run_can_go_on(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint of the first epoch is too large: nothing of it is left, and a run with more room does it all."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert command("", datasets, tmp_path) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert "a checkpoint could not be written (File too large)" in error
    assert error.count("\n") == 1
    folder = checkpoint_folder(tmp_path, "tinyImageNet", "vgg", "al")
    store = Store(folder, 1, "none")
    assert store.newest() is None
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["run.json"]
    store.close()
    assert command("--resume", datasets, tmp_path) == 0
