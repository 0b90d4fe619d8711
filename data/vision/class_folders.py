"""Pictures in folders: those of each class, and a count of everything beside them that is not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..storage.folders import counted, kind, names_in, skipped_notes
from .pictures import is_picture


class Listing(NamedTuple):
    """Picture files and their class numbers."""

    files: list[Path]
    labels: list[int]


@dataclass
class LeftOut:
    """What was found beside the pictures: files of operating systems, and others by folder and ending."""

    clutter: list[str] = field(default_factory=list)
    others: Counter[tuple[str, str]] = field(default_factory=Counter)
    beside: Counter[str] = field(default_factory=Counter)
    """Pictures of each set that lie beside `images/` instead of in it: these are read."""

    def notes(self, title: str) -> list[str]:
        """Return a line for each set of the data set, and one for all clutter."""
        parts: dict[str, list[str]] = {}
        for (part, ending), number in sorted(self.others.items()):
            parts.setdefault(part, []).append(f"{number} {ending}")
        left = [f"{title}: left out of {part}, because not pictures: {', '.join(each)}" for part, each in parts.items()]
        beside = [
            f"{title}: {counted(number, f'{part} picture')} read from beside the folder images/ of a class"
            for part, number in self.beside.items()
            if number
        ]
        return left + beside + skipped_notes(title, self.clutter)


def pictures_in(folder: Path, part: str, left: LeftOut, *, expected: str = "") -> tuple[list[str], list[str]]:
    """Return the names (of pictures, of folders) in `folder`, sorted; anything else is counted in `left`.

    `expected` is a file that lies there in the official data set and is not worth a word. Raises DataError.
    """
    pictures: list[str] = []
    folders: list[str] = []
    for name in names_in(folder, left.clutter):
        if is_picture(name):
            pictures.append(name)
        elif kind(folder / name) == "folder":
            folders.append(name)
        elif name != expected:
            left.others[part, Path(name).suffix.lower() or "without an ending"] += 1
    return pictures, folders


def list_class(folder: Path, part: str, left: LeftOut) -> list[Path]:
    """Return the pictures of one class: those in `folder/images/`, and those in `folder` itself under other names."""
    if kind(folder) is None:
        return []
    direct, folders = pictures_in(folder, part, left, expected=f"{folder.name}_boxes.txt")
    inner: list[str] = []
    if "images" in folders:
        folders.remove("images")
        inner, deeper = pictures_in(folder / "images", part, left)
        folders += deeper
        left.beside[part] += len(set(direct) - set(inner))
    if folders:
        left.others[part, "folders inside a class"] += len(folders)
    twice = set(inner)
    return [folder / "images" / name for name in inner] + [folder / name for name in direct if name not in twice]


def in_order(pictures: dict[str, list[Path]], folder: Path, hint: str) -> Listing:
    """Return the pictures of all classes, whose numbers are their positions in `pictures`.

    Raises DataError, which names the class's place in `folder` and ends in `hint`, for a class without pictures.
    """
    listing = Listing([], [])
    for number, (name, files) in enumerate(pictures.items()):
        if not files:
            raise DataError(f"{folder / name}: holds no images of this class; {hint}")
        listing.files.extend(files)
        listing.labels.extend([number] * len(files))
    return listing


def unlisted(folders: list[str], classes: dict[str, int], where: Path, title: str, listed_in: str) -> list[str]:
    """Return a note on the folders that are no class; none if there are none."""
    extra = [name for name in folders if name not in classes]
    if not extra:
        return []
    return [f"{title}: {counted(len(extra), 'folder')} in {where} left out: not listed in {listed_in}"]
