"""`python -m ALPackage.placement`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ALPackage.placement import Plan
from ALPackage.placement.__main__ import main
from ALPackage.placement.cost import LayerCost
from ALPackage.stage.crew import crew

ROOT = Path(__file__).resolve().parents[3]


def test_a_table_of_numbers_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--costs", "a=150,b=120,c=30,d=10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "workers"
    assert [line.split()[:2] for line in lines[1:5]] == [["1", "1.00x"], ["2", "2.00x"], ["3", "2.07x"], ["4", "2.07x"]]
    assert lines[2].endswith("1.94x     a | b c d"), "what a cut would give stands beside it"
    assert lines[5] == (
        "3 workers sharing all layers: 2.07x, the most of these; a is 48 % of the work: no number of workers brings "
        "more than 2.07x"
    )
    assert main(["--costs", "10,10", "--workers", "2", "--batches", "1"]) == 0
    # One batch fills and drains: 3.3 forward, then all of the second layer.
    assert "1.50x" in capsys.readouterr().out.splitlines()[1]


def test_the_plan_of_a_run_s_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = (torch.device("cpu"),) * 2
    made = Plan((LayerCost("x", 0.002, 0.004, 5), LayerCost("y", 0.002, 0.002, 5)), devices, tuple(crew(devices)))
    path = tmp_path / "digits_vgg.json"
    path.write_text(json.dumps({"methods": {"al": {"layers": 2, "plan": made.to_json()}}}))
    assert main(["--costs", str(path), "--devices", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["2", "1.67x"]


def test_a_list_that_is_longer_than_any_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a bug: the system was asked for a file of that name, and refused."""
    assert main(["--costs", ",".join(["1"] * 300), "--devices", "2", "--batches", "5"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["2", "2.00x"]


def test_more_devices_than_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--costs", "1,2", "--devices", str(10**12)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "1.50x"


@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        ("| true", 141, ""),
        (">/dev/full", 2, "error: the standard output cannot be written (No space left on device)\n"),
        (">&-", 2, "error: the standard output cannot be written (it is closed)\n"),
        (">&- 2>&-", 2, ""),
    ],
)
def test_a_table_that_cannot_be_written(redirection: str, code: int, error: str) -> None:
    line = f"{sys.executable} -m ALPackage.placement --costs ä=3,ö=1 {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", error)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--costs", "1,two"], "--costs: got 'two'; expected ms per layer, such as 151,121,30,10"),
        (["--costs", "1,-2"], "--costs: got '-2'; expected"),
        (["--costs", "1,nan"], "--costs: got 'nan'; expected"),
        (["--costs", ""], "--costs: got ''; expected"),
        (["--costs", "none.json"], "--costs: none.json: No such file or directory"),
        (["--costs", "1,2", "--devices", "0"], "expected whole numbers of at least 1"),
        (["--costs", "1,2", "--rows", "5"], "--rows, --link-gbit: these go with --workload"),
        (["--costs", "1,2", "--batches", "0"], "expected whole numbers of at least 1"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert expected in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"plan": {"layers": [{}]}}', '{"layers": [{"name": "a", "forward_ms": "x"}]}']
)
def test_a_file_that_holds_no_plan_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert main(["--costs", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --costs: {path}: ")
    assert len(message.splitlines()) == 1


def test_as_a_command_without_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ALPackage.placement", "--costs", "3,1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("workers")
