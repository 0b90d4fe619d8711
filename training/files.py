"""Files that are there as a whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError

__all__ = ["named", "probe", "replace_text", "replacing", "sweep"]


#: As long as the names of the files that we look for in a folder.
LONG = "x" * 100


def named(text: str) -> Path:
    """Return the path that a user has named, with `~` expanded. Raises UsageError where no file can have that name."""
    refusal = UsageError(f"{text[:200]!a} cannot be the name of a file or a folder; give another")
    try:
        if b"\0" in os.fsencode(text):
            raise refusal
        path = Path(text).expanduser()
        os.lstat(path / LONG)  # what is too long is an error even for those who only look whether it is there
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, ValueError, RuntimeError):  # too long; what cannot be encoded; a user that is not there
        raise refusal from None
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
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


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path`, in UTF-8, by `replacing` it. Raises OSError."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def probe(folder: Path) -> None:
    """Raise OSError where no file can be written in `folder`."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def sweep(folder: Path, name: str = "") -> None:
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
