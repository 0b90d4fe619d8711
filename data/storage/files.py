"""Files that are there as a whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends well: a reader, or a crash, sees the old one or the new.

    It is on the disk, not only in the system's memory, before it gets its name. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # gone, as it should be
            temporary.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, in UTF-8, by `atomic_write` it. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def check_writable(folder: Path) -> None:
    """Raise OSError where no file can be written in `folder`."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def remove_stale(folder: Path, name: str = "") -> None:
    """Remove what writers that were killed have left in `folder`, of files whose names begin with `name`."""
    for left in folder.glob(f".{glob.escape(name)}*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk as well; where a folder cannot be opened (Windows), the system sees to it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
