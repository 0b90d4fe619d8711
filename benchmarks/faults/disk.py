"""A small disk, to fill."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["NoDiskError", "fill", "small_disk"]


class NoDiskError(RuntimeError):
    """No file system can be mounted here; in one line, why."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 8 MB at a new folder, in memory. Linux, as root. Raises NoDiskError."""
    if shutil.which("mount") is None:
        raise NoDiskError("there is no command to mount a file system with")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        raise NoDiskError("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Leave next to nothing free."""
    with suppress(OSError):  # somebody else writes there meanwhile
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 64_000))
