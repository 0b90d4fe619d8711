"""What to download for a data set: the files, their official addresses and checksums, and where they belong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
            return root / self.holds[0] if all((root / name).exists() for name in self.holds) else None
        return next((root / name for name in (self.path, *self.also) if (root / name).is_file()), None)


@dataclass(frozen=True)
class Resource:
    """The files that one name stands for, and `result`: where they are afterwards, relative to the data root.

    `by_hand`: for a resource without a public address, what the user should put under the root and where to get it.
    """

    name: str
    result: str
    files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""


def archive(name: str, result: str, path: str, url: str, md5: str, *holds: str) -> Resource:
    """Return the resource of a single archive that unpacks to `holds`, by default to `result`."""
    return Resource(name, result, (RemoteFile(path, url, md5, holds or (result,)),))
