"""Files that several processes may use at the same time: written whole or not at all, and locked where need be."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

#: How a file system that has no locks answers: some network mounts, and those without a lock daemon.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends without an exception.

    A reader, or a crash at any time, finds either the old file or the new one: the content is on the disk, not only
    in the system's memory, before it gets its name. Raises OSError.
    """
    # Two threads, or two machines on one network disk, may have the same process id.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # after success there is nothing left to remove
            temporary.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 with `atomic_write`. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, which is created and may stay; it is released when the process ends, however it ends.

    Where the file system has no locks, every process goes ahead. Raises BlockingIOError if another one holds the lock
    and `wait` is False; OSError if the file cannot be created.
    """
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", str(path)) from None
    except NotImplementedError:  # how older versions of filelock report ENOSYS
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Raise OSError if no file can be written in `folder`."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def remove_stale(folder: Path, name: str = "") -> None:
    """Remove the temporary files that killed writers left in `folder`, for files whose names begin with `name`.

    Call it only while no other process writes these files.
    """
    for left in folder.glob(f".{glob.escape(name)}*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk too; Windows, where a folder cannot be opened, does so by itself."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
