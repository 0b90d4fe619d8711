"""What to download for a data set: the files, their official addresses and checksums, and where they belong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .storage.folders import kind, stem


@dataclass(frozen=True)
class RemoteFile:
    """A file that is downloaded to `path`, relative to the data root.

    `holds`: for an archive, what it unpacks to; the archive counts as present once all of these are. `also`: for a
    plain file, other places where the user may have put it.
    """

    path: str
    url: str
    md5: str
    holds: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def find(self, root: Path) -> Path | None:
        """Return where the file, or the first thing it holds, lies under `root`; None if anything is missing."""
        if self.holds:
            return root / self.holds[0] if all(kind(root / name) for name in self.holds) else None
        return next((root / name for name in (self.path, *self.also) if kind(root / name) == "file"), None)


@dataclass(frozen=True)
class Resource:
    """The files that one name stands for, and `result`: where they are afterwards, relative to the data root.

    `by_hand`: for a resource without a public address, what the user should put under the root and where to get it.
    `markers`: names or patterns of what lies in `result`, by which the folder is recognized (see `find_folder`), also
    in another place or inside an archive; `distinctive`: whether no other data set has all of them. `archives`: names,
    without their endings, of further archives that the user may have put into the root; those of `files` and of
    `result` are known.
    """

    name: str
    result: str
    files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""
    markers: tuple[str, ...] = ()
    distinctive: bool = False
    archives: tuple[str, ...] = ()

    @property
    def archive_stems(self) -> tuple[str, ...]:
        """The names, without their endings, of every archive that is unpacked if it is in the root."""
        of_files = [stem(PurePosixPath(file.path).name) for file in self.files if file.holds]
        return tuple(dict.fromkeys([*of_files, *self.archives, *filter(None, [PurePosixPath(self.result).name])]))


def archive(
    name: str,
    result: str,
    path: str,
    url: str,
    md5: str,
    *holds: str,
    markers: tuple[str, ...] = (),
    distinctive: bool = False,
    archives: tuple[str, ...] = (),
) -> Resource:
    """Return the resource of a single archive that unpacks to `holds`, by default to `result`."""
    file = RemoteFile(path, url, md5, holds or (result,))
    return Resource(name, result, (file,), markers=markers, distinctive=distinctive, archives=archives)
