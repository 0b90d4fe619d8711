"""Find a data set's folder or archive where users leave it, and look at files and folders without a traceback.

A folder is recognized by what lies in it, never by its name alone, so an empty folder that a failed command left behind
hides nothing. What is there but may not be read is an error, not a missing file: it must not be downloaded again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import filter as matching
from pathlib import Path
from typing import Literal

from ..errors import DataError
from .clutter import is_clutter

#: Of archives, in the order in which they are preferred; in any case.
ARCHIVE_ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")

#: What this package itself keeps beside data.
_OURS = (".cache", ".lock")

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def kind(path: Path) -> Literal["file", "folder"] | None:
    """Return what `path` is, None if nothing is there. Raises DataError where that cannot be seen."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in _ABSENT:
            raise unreadable(path, error) from error
        if path.is_symlink():
            raise DataError(f"{path}: is a link to {os.readlink(path)}, which is not there; mend the link") from error
        return None
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{path}: is a pipe or device, not a file; put a file in its place, or name another"
        )  # reading it might never end
    return "file"


def names_in(folder: Path, skipped: list[str] | None = None) -> list[str]:
    """Return the names in `folder`, sorted, without what operating systems leave, which is added to `skipped`.

    Raises DataError.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from error
    if skipped is not None:
        skipped += [name for name in names if is_clutter(name) and name not in _OURS]
    return [name for name in names if not is_clutter(name)]


def skipped_notes(title: str, skipped: Sequence[str]) -> list[str]:
    """Return a note, starting with `title`, that counts what `names_in` skipped; none if that is nothing."""
    if not skipped:
        return []
    names = sorted(set(skipped))
    shown = ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
    return [f"{title}: {counted(len(skipped), 'file')} that an operating system or editor left ({shown}) not read"]


def counted(number: int, what: str) -> str:
    """Return "1 file" or "2 files"."""
    return f"{number} {what}{'s' * (number != 1)}"


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file or folder that the system does not hand out; it names the folder that is closed."""
    if isinstance(error, PermissionError):
        path = next((above for above in reversed(path.parents) if not os.access(above, os.X_OK)), path)
    hint = "check its permissions" if isinstance(error, PermissionError) else "restore it, or get it again"
    return DataError(f"{path}: cannot be read ({error.strerror or error}); {hint}")


def find_folder(
    root: Path, name: str, markers: Sequence[str], *, title: str, distinctive: bool = False
) -> tuple[Path, list[str]] | None:
    """Return (folder, notes) of the data set whose place is `root/name`, or None if it is not there.

    A folder is the data set's if it holds something for each of `markers`, which are names or patterns such as
    `data_batch_*`. Looked at are, in this order: its place; the folders in it (`name/name/`); `root` itself, if it
    is called `name` or if `distinctive` says that no other data set has all these markers; and `name` in another
    folder of `root`. If none of these has all markers, the first with any of them is taken, and its reader says what
    is missing. A folder out of place gives a note that starts with `title`.

    Raises:
        DataError: two folders that fit equally well, or a folder that cannot be read.
    """
    place = root / name
    if kind(root) is None:
        return None
    if kind(root) == "file":
        raise DataError(f"{root}: is a file; set --data-root to the folder that holds the data")
    if kind(place) == "file":
        raise DataError(f"{place}: is a file, and {title} needs a folder of this name; move or remove the file")
    own = Path(name).name.casefold() in {root.name.casefold(), root.resolve().name.casefold()}
    for enough in (all, any):
        for group in _groups(place, root, name, root_too=own or (distinctive and enough is all)):
            found = [folder for folder in group if holds(folder, markers, enough)]
            if len(found) > 1:
                raise DataError(
                    f"{title}: found in {found[0]} and in {found[1]}; keep one of them, or move one to {place}"
                )
            if found:
                notes = [] if found[0] == place else [f"{title}: read from {found[0]}; its usual place is {place}"]
                return found[0], notes
    return None


def stem(name: str) -> str:
    """Return the name of an archive without its ending."""
    endings = sorted(ARCHIVE_ENDINGS, key=len, reverse=True)
    return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), name)


def find_archive(folder: Path, stems: Iterable[str]) -> Path | None:
    """Return the archive in `folder` that is called like one of `stems`, in any case, or None. Raises DataError."""
    if kind(folder) != "folder":
        return None
    present = {name.casefold(): folder / name for name in names_in(folder)}
    wanted = (f"{each}{ending}".casefold() for each in stems for ending in ARCHIVE_ENDINGS)
    return next((present[name] for name in wanted if name in present and kind(present[name]) == "file"), None)


def holds(folder: Path, markers: Iterable[str], enough: Callable[[Iterable[object]], bool] = all) -> bool:
    """Tell whether `folder` holds all `markers`, or any with `enough=any`. Raises DataError if it cannot be read."""
    names = names_in(folder)
    return enough(matching(names, marker) for marker in markers)


def _groups(place: Path, root: Path, name: str, *, root_too: bool) -> Iterator[list[Path]]:
    """Yield the folders to look at; those of one list are equally near to the right place."""
    if kind(place) == "folder":
        yield [place]
        inside, again = _subfolders(place), place / Path(name).name
        yield [folder for folder in inside if folder == again]
        yield [folder for folder in inside if folder != again]
    if root_too and os.access(root, os.R_OK):
        yield [root]
    if os.access(root, os.R_OK):  # one that cannot be listed may still have the data set in its place
        yield [other / name for other in _subfolders(root) if other != place and _is_open(other / name)]


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that may be read."""
    return [folder / name for name in names_in(folder) if _is_open(folder / name)]


def _is_open(path: Path) -> bool:
    # These are other folders of the user's, in which the data might be: without rights, they are simply none of ours.
    return os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)
