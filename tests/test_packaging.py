"""What `pip install .` installs, and what `make` passes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_of_the_library_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent.relative_to(ROOT) for path in (ROOT / "ALPackage").rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(path.parts) for path in found)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_finds_the_packages_with_pythons_safe_path() -> None:
    """Guards a bug: `python -m training.demo` does not see this folder where PYTHONSAFEPATH is set."""
    done = subprocess.run(
        ["make", "--eval", 'shown: ; @echo "<$$PYTHONSAFEPATH>"', "shown"],
        cwd=ROOT,
        # Without the flags of the `make` that runs the tests.
        env={key: value for key, value in os.environ.items() if "MAKE" not in key} | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "<>\n")
