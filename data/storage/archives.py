"""Unpack an archive without trusting it: nothing outside the target, no links, no bombs, all or nothing."""

from __future__ import annotations

import functools
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm import tqdm

from ..errors import DataError

#: An archive may unpack to MIN_ROOM bytes, or to MAX_RATIO times its own size where that is more. The real ones
#: stay under 4; a thousandfold is what an archive made to fill a disk reaches.
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


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive, or the padding at its end. `kind` is one of these words, or what we refuse."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path) -> list[Path]:
    """Unpack a zip or tar (plain or compressed) and return its top-level entries, now under `into`.

    Everything is unpacked into a temporary folder inside `into`; then each top-level entry takes its place by
    one rename, so no reader ever sees half of one. An entry that is already there is kept as it is.
    `DataError`: a member that points outside, a link or a device, more bytes than an archive of this size may
    hold (all of these before anything is written), or a damaged archive. `OSError`: it cannot be written.
    """
    try:
        with _opened(archive) as members:
            count = _check(archive, members())
            room = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into))
            try:
                _write(members(), room, count, archive.name)
                return [_take(entry, into) for entry in sorted(room.iterdir())]
            finally:
                shutil.rmtree(room, ignore_errors=True)
    except DataError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a read-only folder: nothing is wrong with the archive
        raise DataError(f"{archive}: cannot be unpacked ({error}); remove it and fetch it again") from error


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[], Iterator[Member]]]:
    """Open `archive` and yield a function that walks its members, as often as it is called."""
    # Tar first: a zip is recognized by its end, so a tar whose last member is a zip would pass for one.
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            yield lambda: _tar_members(tarred)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield lambda: (_zip_member(zipped, info) for info in zipped.infolist())
    else:
        raise DataError(f"{archive}: is neither a zip nor a tar archive; remove it and fetch it again")


def _zip_member(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    # Zips made on Windows carry no Unix mode at all: 0 stands for a plain file.
    plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
    kind = "folder" if info.is_dir() else "file" if plain else "link or device"
    return Member(info.filename, kind, info.file_size, lambda: zipped.open(info))


def _tar_members(tarred: tarfile.TarFile) -> Iterator[Member]:
    for info in tarred:
        kind = "folder" if info.isdir() else "file" if info.isfile() else "link or device"
        yield Member(info.name, kind, info.size, functools.partial(tarred.extractfile, info))
    # Tar has no checksum of the content, gzip has: it is compared when the stream has been read to its end.
    while tarred.fileobj is not None and (rest := tarred.fileobj.read(1 << 20)):
        yield Member("(end)", "padding", len(rest), io.BytesIO)


def _check(archive: Path, members: Iterator[Member]) -> int:
    """Return how many members there are; `DataError` at the first that must not be unpacked."""
    room = max(MIN_ROOM, MAX_RATIO * archive.stat().st_size)
    total = count = 0
    for member in members:
        posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
        if posix.is_absolute() or windows.drive or windows.root or ".." in {*posix.parts, *windows.parts}:
            raise DataError(f"{archive}: member {member.name!r} points outside the target; do not use this file")
        if member.kind not in ("file", "folder", "padding"):
            raise DataError(f"{archive}: member {member.name!r} is a {member.kind}; do not use this file")
        total, count = total + member.size, count + 1
        # Asked at every member, so that the rest of a bomb is not even decompressed to be counted.
        if total > room:
            raise DataError(
                f"{archive}: would unpack to more than {room >> 20} MiB, over {MAX_RATIO} times its size; "
                "do not use this file"
            )
    return count


def _write(members: Iterator[Member], room: Path, count: int, title: str) -> None:
    made: set[Path] = set()
    for member in tqdm(members, total=count, desc=f"unpacking {title}", unit="file", leave=False, disable=None):
        if member.kind == "padding":
            continue
        path = room / member.name
        folder = path if member.kind == "folder" else path.parent
        if folder not in made:
            folder.mkdir(parents=True, exist_ok=True)
            made.add(folder)
        if member.kind == "file":
            source = member.open()
            if source is None:
                raise OSError(f"member {member.name!r} cannot be read")
            with source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _take(entry: Path, into: Path) -> Path:
    target = into / entry.name
    if not target.exists():
        os.replace(entry, target)
    return target
