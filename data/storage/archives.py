"""Unpack an archive without trusting it: nothing outside the target, no links, no bombs, all or nothing.

`tarfile` and `zipfile` do the extraction, with their own protection. What they lack is added here: every member is
checked before the first one is written, the unpacked size is bounded, and entries appear whole or not at all. People
pack a data set anew with a folder more or less, or as an archive in an archive: what is wanted is looked for inside.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from tqdm import tqdm

from ..errors import DataError
from .clutter import is_clutter
from .folders import ARCHIVE_ENDINGS, holds, names_in, unreadable

#: An archive may unpack to MIN_ROOM bytes, or to MAX_RATIO times its own size where that is more. Real data sets
#: stay below a ratio of 4; an archive that is made to fill a disk reaches a thousand.
MIN_ROOM = 1 << 30
MAX_RATIO = 20

#: How deep in an archive the wanted folder may lie.
DEPTH = 4

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


def unpack(archive: Path, into: Path, name: str = ".", markers: Sequence[str] = ()) -> list[Path]:
    """Unpack a zip or tar (plain or compressed) and return the entries that are now under `into`.

    Everything is unpacked into a temporary folder inside `into`. What is then moved to `into/name`, by one rename, is
    the folder that holds something for each of `markers` (or, if there is none, for any of them), wherever it lies in
    the archive or in an archive inside it. Without markers, it is the archive's top level. Where `into/name` exists,
    the entries of that folder are moved into it one by one; what is already there is kept as it is.

    Raises:
        DataError: a member that points outside, a link or a device, or more bytes than an archive of this size may
            hold (all of these before anything is written); a damaged archive; nothing that has the markers.
        OSError: the target cannot be written.
    """
    with _unpacked(archive, into) as room:
        found = _find(archive, room, markers) if markers else room
        if found is None and (inner := _inner_archive(room)):
            with _unpacked(inner, room) as inner_room:
                if (found := _find(archive, inner_room, markers)) is not None:
                    return _move_into_place(found, into, name)
        if found is None:
            raise DataError(f"{archive}: does not hold {' and '.join(markers)}; remove it and fetch it again")
        return _move_into_place(found, into, name)


@contextlib.contextmanager
def _unpacked(archive: Path, into: Path) -> Iterator[Path]:
    """Yield a temporary folder in `into` that holds the content of `archive`."""
    with contextlib.ExitStack() as stack:
        try:
            opened = _open(archive)
            stack.callback(opened.close)
            count = _check(archive, opened)
        except DataError:
            raise
        except BROKEN as error:
            raise _broken(archive, error) from error
        outer = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into))
        stack.callback(shutil.rmtree, outer, ignore_errors=True)
        room = outer / "content"  # may become the data set's folder, and the outer one is closed to other users
        room.mkdir()
        try:
            _extract(opened, room, count, archive.name)
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a full disk or a read-only folder: nothing is wrong with the archive
            raise _broken(archive, error) from error
        yield room


def _broken(archive: Path, error: BaseException) -> DataError:
    if isinstance(error, OSError) and error.errno is not None:
        return unreadable(archive, error)
    return DataError(f"{archive}: cannot be unpacked ({error}); remove it and fetch it again")


def _find(archive: Path, room: Path, markers: Sequence[str]) -> Path | None:
    """Return the folder nearest to the top that holds all markers, else the nearest that holds any; None if none.

    Raises DataError if two on one level hold all.
    """
    levels = [[room]]
    for _ in range(DEPTH):
        levels.append([folder / name for folder in levels[-1] for name in names_in(folder) if (folder / name).is_dir()])
    for enough in (all, any):
        for level in levels:
            found = [folder for folder in level if holds(folder, markers, enough)]
            if len(found) > 1 and enough is all:
                inside = " and ".join(str(folder.relative_to(room)) for folder in found[:2])
                raise DataError(
                    f"{archive}: {inside} in it both hold {' and '.join(markers)}; unpack one of them by hand"
                )
            if found:
                return found[0]
    return None


def _inner_archive(room: Path) -> Path | None:
    """Return the only archive in an unpacked archive, None if there is none or more than one."""
    found = [path for path in room.rglob("*") if path.name.lower().endswith(ARCHIVE_ENDINGS) and path.is_file()]
    found = [path for path in found if not any(map(is_clutter, path.relative_to(room).parts))]
    return found[0] if len(found) == 1 else None


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
                entry.filename = entry.filename.replace("\\", "/")  # old packers on Windows write it, against the norm
                opened.extract(entry, room)
                bar.update()
        else:
            for info in opened.getmembers():
                opened.extract(info, room, set_attrs=False, filter="data")  # permissions as for any new file
                bar.update()


def _move_into_place(found: Path, into: Path, name: str) -> list[Path]:
    """Move the folder `found` to `into/name`, or its entries one by one if that exists; return what they are now."""
    target = into / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(found, target)
        return [target]
    moved = [target / entry for entry in names_in(found)]
    for entry in moved:
        if not entry.exists():
            os.replace(found / entry.name, entry)
    return moved
