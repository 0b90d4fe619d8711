"""Unpack an archive without trusting it: nothing outside the target, no links, no bombs, all or nothing.

`tarfile` and `zipfile` do the extraction, with their own protection. What they lack is added here: every member is
checked before the first one is written, the unpacked size is bounded, and entries appear whole or not at all.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from tqdm import tqdm

from ..errors import DataError

#: An archive may unpack to MIN_ROOM bytes, or to MAX_RATIO times its own size where that is more. Real data sets
#: stay below a ratio of 4; an archive that is made to fill a disk reaches a thousand.
MIN_ROOM = 1 << 30
MAX_RATIO = 20

BROKEN = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile: the member is encrypted
    NotImplementedError,  # zipfile: a compression that Python does not know
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
)

Archive = tarfile.TarFile | zipfile.ZipFile


class _Member(NamedTuple):
    name: str
    size: int
    plain: bool
    """Whether it is a file or a folder, not a link or a device."""


def unpack(archive: Path, into: Path) -> list[Path]:
    """Unpack a zip or tar (plain or compressed) and return its top-level entries, now under `into`.

    Everything is unpacked into a temporary folder inside `into`; then each top-level entry is moved into place by one
    rename, so no reader ever sees half of one. An entry that already exists is kept as it is.

    Raises:
        DataError: a member that points outside, a link or a device, or more bytes than an archive of this size may
            hold (all of these before anything is written); a damaged archive.
        OSError: the target cannot be written.
    """
    try:
        with _open(archive) as opened:
            count = _check(archive, opened)
            room = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into))
            try:
                _extract(opened, room, count, archive.name)
                return [_move_into_place(entry, into) for entry in sorted(room.iterdir())]
            finally:
                shutil.rmtree(room, ignore_errors=True)
    except DataError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a read-only folder: nothing is wrong with the archive
        raise DataError(f"{archive}: cannot be unpacked ({error}); remove it and fetch it again") from error


def _open(archive: Path) -> Archive:
    # Tar first: a zip is recognized by its end, so a tar whose last member is a zip would be taken for one.
    if tarfile.is_tarfile(archive):
        if not hasattr(tarfile, "data_filter"):
            raise DataError(f"{archive}: this Python cannot unpack a tar safely; use Python 3.10.12, 3.11.4 or newer")
        return tarfile.open(archive)
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    raise DataError(f"{archive}: is neither a zip nor a tar archive; remove it and fetch it again")


def _members(opened: Archive) -> Iterator[_Member]:
    """Yield the members, and the padding at the end of a tar as members of no name."""
    if isinstance(opened, zipfile.ZipFile):
        for entry in opened.infolist():
            # Zips made on Windows carry no Unix mode at all: 0 stands for a plain file.
            mode = stat.S_IFMT(entry.external_attr >> 16)
            yield _Member(entry.filename, entry.file_size, mode in (0, stat.S_IFREG, stat.S_IFDIR))
        return
    for info in opened:
        yield _Member(info.name, info.size, info.isdir() or info.isfile())
    # Tar has no checksum of its content, but gzip has: Python compares it when the stream is read to its end.
    while opened.fileobj is not None and (rest := opened.fileobj.read(1 << 20)):
        yield _Member("", len(rest), True)


def _check(archive: Path, opened: Archive) -> int:
    """Return the number of members; raise `DataError` at the first that must not be unpacked."""
    room = max(MIN_ROOM, MAX_RATIO * archive.stat().st_size)
    total = count = 0
    for member in _members(opened):
        posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
        if posix.is_absolute() or windows.drive or windows.root or ".." in {*posix.parts, *windows.parts}:
            raise DataError(f"{archive}: member {member.name!r} points outside the target; do not use this file")
        if not member.plain:
            raise DataError(f"{archive}: member {member.name!r} is a link or device; do not use this file")
        total, count = total + member.size, count + bool(member.name)
        # Compared at every member, so that the rest of a bomb is not even decompressed to be counted.
        if total > room:
            raise DataError(
                f"{archive}: would unpack to more than {room >> 20} MiB, over {MAX_RATIO} times its size; "
                "do not use this file"
            )
    return count


def _extract(opened: Archive, room: Path, count: int, title: str) -> None:
    with tqdm(total=count, desc=f"unpacking {title}", unit="file", leave=False, disable=None) as bar:
        if isinstance(opened, zipfile.ZipFile):
            for entry in opened.infolist():
                opened.extract(entry, room)
                bar.update()
        else:
            for info in opened.getmembers():
                opened.extract(info, room, set_attrs=False, filter="data")  # permissions as for any new file
                bar.update()


def _move_into_place(entry: Path, into: Path) -> Path:
    target = into / entry.name
    if not target.exists():
        os.replace(entry, target)
    return target
