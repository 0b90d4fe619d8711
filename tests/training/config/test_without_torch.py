"""What needs neither device nor data is answered without importing torch, and so at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SLOW = ("torch", "numpy", "pandas", "ALPackage")
#: CPU seconds; importing torch alone takes several times as long.
LIMIT = 0.6

ANSWERED = [
    "cvmain.py --help",
    "nlpmain.py --help",
    "cvmain.py --list",
    "nlpmain.py --list",
    "cvmain.py --print-config",
    "-m training.predict --help",
]
REFUSED = [
    ("cvmain.py digits vgg --set epoch=3", '"epoch" is not a key: did you mean "epochs"?'),
    ("nlpmain.py agnews lstm --set epochs=0", "epochs: got 0; expected a whole number of at least 1"),
    ("cvmain.py digits vgx", '"vgx" is not a model'),
    ("nlpmain.py agnew lstm", "agnews"),
    (
        'cvmain.py digits vgg --set al_gpu_list=["cpu"]',
        'al_gpu_list has 1 entry, VGG with AL has 4 layers; give 4, or "auto"',
    ),
    ("cvmain.py digits vgg --method adam", 'argument --method: got "adam"'),
    ("nlpmain.py agnews transformer --set n_heads=7", "n_heads: got 7; expected a divisor"),
    (
        "cvmain.py digits vgg --workers 1 --set al_gpu_list=cpu:0,cpu:1,cpu,cpu",
        "workers: got 1, but al_gpu_list ties layers to 2 of them (cpu:0, cpu:1): give at least 2",
    ),
    ("cvmain.py digits vgg --plugin none.py", "--plugin none.py: there is no such file"),
    (
        "cvmain.py digits vgg --tracker wandbb",
        '--tracker wandbb: there is no module of that name; did you mean "wandb"?',
    ),
    ("cvmain.py digits vgg --config none.json", "none.json: there is no such file"),
    ("-m training.predict result --top 0", "argument --top: got '0'; expected a whole number of at least 1"),
]


def answer(line: str) -> tuple[int, str, str]:
    """Run a command line and return its exit code and both outputs; no slow package may have been imported."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *line.split(" ")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    after = os.times()
    lines = done.stderr.splitlines()
    imported = {each.rpartition("|")[2].strip().partition(".")[0] for each in lines if each.startswith("import time:")}
    assert "pydantic" in imported
    assert imported.isdisjoint(SLOW)
    children = after.children_user - before.children_user + after.children_system - before.children_system
    assert children < LIMIT
    return done.returncode, done.stdout, "\n".join(each for each in lines if not each.startswith("import time:"))


@pytest.mark.parametrize("line", ANSWERED)
def test_it_answers_at_once(line: str) -> None:
    """Guards a bug: --help imported torch, and took seconds."""
    code, said, mistakes = answer(line)
    assert (code, mistakes) == (0, "")
    assert len(said.splitlines()) > 5


@pytest.mark.parametrize(("line", "expected"), REFUSED)
def test_it_refuses_at_once(line: str, expected: str) -> None:
    code, said, mistake = answer(line)
    assert (code, said) == (2, "")
    assert mistake.startswith("error: ")
    assert len(mistake.splitlines()) == 1
    assert expected in mistake


@pytest.mark.parametrize("arguments", [["--help"], ["nowhere"]])
def test_the_report_of_results_needs_no_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "training.report", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"pydantic", "pandas"} <= imported
    assert imported.isdisjoint({"torch", "ALPackage"})


def test_the_packages_of_names_need_no_torch() -> None:
    code = f"import sys, models, data, training.config; sys.exit(not set(sys.modules).isdisjoint({SLOW}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
