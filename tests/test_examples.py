"""The examples run, each within seconds, and show what they say. CPU, no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
#: By example: what it prints.
SHOWS = {
    "al_on_own_layers.py": r"accuracy with the first 3 of 3 layers: 0\.9\d",
    "continuous_pipeline.py": r"weights equal bit for bit: True\n",
    "over_processes.py": r"accuracy over 2 processes: (0\.[89]\d+), in one: \1\n",
    "thread_loop.py": r"(layer \d: [\d,]+ weights, equal bit for bit: True\n){3}",
}


def test_every_example_is_known() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(SHOWS)


#: What runs in several processes takes longer.
SLOW = ("over_processes.py",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SHOWS])
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    assert len((FOLDER / name).read_text().splitlines()) < 60
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if name == "over_processes.py" else []
    command = [sys.executable, *launcher, str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(SHOWS[name], done.stdout), done.stdout
