"""Provenance: versions and devices by name, and a commit only where it is ours."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from training.runs import provenance
from training.runs.provenance import collect

GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_and_devices() -> None:
    found = collect(["cpu", torch.device("cpu"), "cuda:99"] if not torch.cuda.is_available() else ["cpu"])
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"torchvision", "torchtext", "numpy"} <= set(found["versions"])
    assert found["cores"] >= 1
    assert found["device_names"]["cpu"]
    assert found["device_names"].get("cuda:99") is None
    assert json.loads(json.dumps(found)) == found


def test_the_command_names_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    script = provenance.ROOT / "benchmarks" / "schedule" / "__main__.py"
    for given, told in ((str(script), "benchmarks/schedule/__main__.py"), ("cvmain.py", "cvmain.py"), ("-c", "-c")):
        monkeypatch.setattr("sys.argv", [given, "--repeats", "1"])
        assert collect([])["command"] == [told, "--repeats", "1"]


@GIT
def test_the_commit_and_whether_the_source_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path.resolve())
    assert collect(["cpu"])["git_commit"] is None
    git(tmp_path, "init", "-q")
    assert collect(["cpu"])["git_commit"] is None  # nothing committed yet
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "out.csv").write_text("")
    found = collect(["cpu"])
    assert found["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert found["git_dirty"] is False
    (tmp_path / "a.py").write_text("2")
    assert collect(["cpu"])["git_dirty"] is True


@GIT
def test_a_copy_inside_another_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.setattr(provenance, "ROOT", inner.resolve())
    assert collect(["cpu"])["git_commit"] is None


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = collect(["cpu"])
    assert found["git_commit"] is None
    assert found["git_dirty"] is None
