"""Pictures are drawn whatever matplotlib's user has set: backends, settings files, folders that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from training.report.drawing import plain_settings

ROOT = Path(__file__).resolve().parents[3]
DRAW = """
import io, os, sys
sys.path.insert(0, sys.argv[1])
from training.report.drawing import plain_settings
import matplotlib
from matplotlib.figure import Figure
@plain_settings()
def draw():
    figure = Figure()
    figure.subplots().set_title("a title")
    figure.savefig(io.BytesIO(), format="png")
draw()
print(matplotlib.rcParams._get_backend_or_none() if hasattr(matplotlib.rcParams, "_get_backend_or_none") else None)
print(os.environ.get("MPLBACKEND"))
"""


def draw(folder: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(ROOT)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "matplotlibrc" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_a_backend_that_a_notebook_passes_on_is_not_asked_for(backend: str, tmp_path: Path) -> None:
    """Guards a bug: every `!python cvmain.py ..` in a notebook ended with ValueError."""
    assert draw(tmp_path, MPLBACKEND=backend)[1] == backend, "for whatever the process starts"


def test_a_backend_that_there_is_stays_the_choice_of_others_in_the_process(tmp_path: Path) -> None:
    assert draw(tmp_path, MPLBACKEND="qtagg") in (["qtagg"] * 2, ["None", "qtagg"])


def test_a_settings_file_that_cannot_be_read_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: True\n# caf\xe9\n")
    draw(tmp_path)


def test_a_folder_of_settings_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    draw(tmp_path, MPLCONFIGDIR=os.devnull, HOME=os.devnull, TMPDIR=os.devnull)


def test_settings_do_not_reach_our_pictures(tmp_path: Path) -> None:
    """Guards a bug: with LaTeX in the settings, and none installed, a run ended with a traceback at its end."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nno colon\nlines.linewidth: thick\n")
    draw(tmp_path)
    with mpl.rc_context({"axes.grid": True, "savefig.format": "pdf"}):
        with plain_settings():
            assert not mpl.rcParams["axes.grid"]
        assert mpl.rcParams["axes.grid"]
