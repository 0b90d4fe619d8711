"""tinyImageNet: which picture files there are and of which class, in the official layout and what scripts make of it.

The official `val` set has all its images in one folder and their classes in `val_annotations.txt`. Reading it as a
folder per class would give one class and wrong labels, so where that file and such images are, it decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..download import locate
from ..errors import DataError
from ..resource import archive
from ..storage.folders import counted, kind, names_in
from ..storage.records import read_lines
from .class_folders import LeftOut, Listing, in_order, list_class, pictures_in, unlisted
from .images import Images
from .picture_cache import decoded

TITLE = "tinyImageNet"

RESOURCE = archive(
    TITLE,
    "tiny-imagenet-200",
    "tiny-imagenet-200.zip",
    "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    markers=("train", "val", "wnids.txt"),
    distinctive=True,
)

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val_annotations.txt"
AGAIN = "unpack the official zip again"
NO_IMAGES = f"{AGAIN}, or take the class out of {WNIDS} and {ANNOTATIONS}"


def load(root: Path, image_size: int) -> Images:
    """Read tinyImageNet; the decoded images are cached in `root/.cache`."""
    folder, notes = locate(RESOURCE, root)
    images = read_tiny_imagenet(folder, image_size, cache=root / ".cache")
    return Images(images.classes, images.train, images.test, [*notes, *images.notes])


def read_tiny_imagenet(folder: Path, size: int, *, cache: Path) -> Images:
    """Read the folder `tiny-imagenet-200`; images are uint8 (rows, 3, size, size).

    The classes are those of `wnids.txt`, in its order, or the folders of `train` where there is no such file. The
    official val set is the test set. Every image becomes RGB. The decoded images are kept in `cache` (see `decoded`).
    Folders and annotations of other classes are left out, with a note. `DataError` names the file, and the line, of a
    missing or damaged image, or of a missing annotation.
    """
    left = LeftOut()
    names_in(folder, left.clutter)
    loose, folders = pictures_in(folder / "train", "train", left)
    wnids, notes = _wnids(folder, folders)
    listed_in = WNIDS if kind(folder / WNIDS) else "train"
    notes += unlisted(folders, wnids, folder / "train", TITLE, listed_in)
    if loose:
        notes.append(f"{TITLE}: {counted(len(loose), 'picture')} in {folder / 'train'} left out: in no class's folder")
    train = in_order(
        {wnid: list_class(folder / "train" / wnid, "train", left) for wnid in wnids}, folder / "train", NO_IMAGES
    )
    test = _test(folder / "val", wnids, listed_in, left, notes)
    words = _class_names(folder / WORDS, wnids)
    notes += left.notes(TITLE)
    sets = []
    for part, (files, labels) in (("train", train), ("val", test)):
        images, told = decoded(files, size, folder=folder, cache=cache, title=TITLE, part=part)
        sets.append((images, torch.tensor(labels)))
        notes += told
    return Images(words, sets[0], sets[1], list(dict.fromkeys(notes)))  # both sets may lack the cache


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines that are not blank."""
    yield from ((number, line.strip("\r\n")) for number, line in enumerate(read_lines(path), 1) if line.strip())


def _wnids(folder: Path, folders: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return the class number of each wnid, and notes. `folders`: those of train."""
    path = folder / WNIDS
    if kind(path) is None:
        if not folders:
            raise DataError(f"{folder / 'train'}: holds no folder of a class; {AGAIN}")
        note = (
            f"{TITLE}: there is no {path}, so the classes are the {len(folders)} folders of train, numbered by name; "
            "that is not the official order, and results are not bit for bit those with it"
        )
        return {wnid: number for number, wnid in enumerate(folders)}, [note]
    wnids: dict[str, int] = {}
    for number, line in _lines(path):
        if wnids.setdefault(line.strip(), len(wnids)) != len(wnids) - 1:
            raise DataError(f"{path}, line {number}: {line.strip()} is listed twice; remove one")
    if not wnids:
        raise DataError(f"{path}: lists no class; {AGAIN}")
    if not wnids.keys() & set(folders):
        raise DataError(
            f"{path}: no line of it is a folder of {folder / 'train'}; the first one is {next(iter(wnids))[:40]!r}; "
            f"{AGAIN}, or remove the file: the classes are then the folders"
        )
    return wnids, []


def _class_names(path: Path, wnids: dict[str, int]) -> list[str]:
    """Return the first word that words.txt has for each class, and the wnid where it has none."""
    words: dict[str, str] = {}
    if kind(path) is not None:
        for number, line in _lines(path):
            wnid, tab, names = line.partition("\t")
            if not tab:
                raise DataError(f"{path}, line {number}: {line[:40]!r} is not a wnid, a tab and words; {AGAIN}")
            words[wnid.strip()] = names.partition(",")[0].strip()
    return [words.get(wnid) or wnid for wnid in wnids]


def _test(folder: Path, wnids: dict[str, int], listed_in: str, left: LeftOut, notes: list[str]) -> Listing:
    """List the official val set, or one that a script has sorted into a folder per class, in `val` or `val/images`."""
    annotations, inner = folder / ANNOTATIONS, folder / "images"
    loose, folders = pictures_in(folder, "val", left, expected=ANNOTATIONS)
    flat = [folder / name for name in loose]
    places = {folder: folders}
    if "images" in folders:
        folders.remove("images")
        names, places[inner] = pictures_in(inner, "val", left)
        flat += [inner / name for name in names]
    by_folder: dict[Path, dict[str, list[Path]]] = {}
    for place, inside in places.items():
        notes += unlisted(inside, wnids, place, TITLE, listed_in)
        found = {wnid: list_class(place / wnid, "val", left) for wnid in wnids if wnid in inside}
        if any(found.values()):
            by_folder[place] = found
    if len(by_folder) > 1:
        raise DataError(f"{folder}: classes have folders both in it and in {inner}; keep one of the two sets")
    place, found = next(iter(by_folder.items()), (folder, {}))
    annotated = list(_annotated(annotations)) if kind(annotations) is not None else []
    if flat and annotated:
        return _official(annotations, annotated, flat, found, wnids, listed_in, notes)
    if not found and flat and kind(annotations) is not None:
        raise DataError(f"{annotations}: is empty; {AGAIN}")
    if not found:
        raise DataError(f"{folder}: has neither {ANNOTATIONS} with images/ nor a folder per class; {AGAIN}")
    if flat:
        notes.append(
            f"{TITLE}: {counted(len(flat), 'picture')} in {flat[0].parent} left out: without {ANNOTATIONS} their "
            "classes are not known"
        )
    _compare(annotations, annotated, found, notes)
    notes.append(f"{TITLE}: the val set is read from class folders in {place}, not from images/ and {ANNOTATIONS}")
    return in_order({wnid: found.get(wnid, []) for wnid in wnids}, place, NO_IMAGES)


class _Annotation(NamedTuple):
    """A line of the annotations: the name of a picture and its class, which is empty in a line of another form."""

    number: int
    name: str
    wnid: str


def _annotated(path: Path) -> Iterator[_Annotation]:
    """Yield what the lines say; the folder that a script may have put before a picture's name does not matter."""
    for number, line in _lines(path):
        name, _, rest = line.partition("\t")
        name = name.strip().replace("\\", "/").rpartition("/")[2]
        yield _Annotation(number, name, rest.partition("\t")[0].strip())


def _official(
    annotations: Path,
    annotated: list[_Annotation],
    flat: list[Path],
    by_folder: dict[str, list[Path]],
    wnids: dict[str, int],
    listed_in: str,
    notes: list[str],
) -> Listing:
    """List the pictures that the annotations name: in one folder, or already moved to that of their class."""
    present = {path.name: path for path in flat}
    moved = {(wnid, path.name): path for wnid, paths in by_folder.items() for path in paths}
    seen: set[str] = set()
    unlisted_lines: list[_Annotation] = []
    listing = Listing([], [])
    for line in annotated:
        where, (_, name, wnid) = f"{annotations}, line {line.number}", line
        if not wnid:
            raise DataError(f"{where}: {name[:40]!r} is not a file name, a tab and a wnid; {AGAIN}")
        if name in seen:
            raise DataError(f"{where}: {name} is annotated twice; remove one of the lines")
        seen.add(name)
        if wnid not in wnids:
            unlisted_lines.append(line)
            continue
        path = present.get(name) or moved.get((wnid, name))
        if path is None:
            raise DataError(f"{where}: there is no image {flat[0].parent / name}; restore it, or remove the line")
        moved.pop((wnid, name), None)
        listing.files.append(path)
        listing.labels.append(wnids[wnid])
    for name in sorted(present.keys() - seen):
        raise DataError(f"{present[name]}: {ANNOTATIONS} has no line for it; add one, or remove the image")
    if unlisted_lines:
        number, _, wnid = unlisted_lines[0]
        if not listing.files:
            raise DataError(f"{annotations}, line {number}: {wnid[:40]!r} is no class in {listed_in}; {AGAIN}")
        notes.append(
            f"{TITLE}: {counted(len(unlisted_lines), 'picture')} of {annotations} left out, the first in line {number}:"
            f" classes such as {wnid[:40]} are not listed in {listed_in}"
        )
    in_folders = sum(path.name not in present for path in listing.files)
    if in_folders:
        notes.append(
            f"{TITLE}: {counted(in_folders, 'picture')} of val read from class folders, the others from images/"
        )
    if moved:
        first = next(iter(moved.values()))
        notes.append(
            f"{TITLE}: {counted(len(moved), 'picture')} in class folders of val left out, such as {first}: "
            f"{ANNOTATIONS} has no line for them"
        )
    return listing


def _compare(
    annotations: Path, annotated: list[_Annotation], by_folder: dict[str, list[Path]], notes: list[str]
) -> None:
    """Compare sorted pictures with the annotations that a script left behind; raise DataError if they disagree."""
    told = {name: wnid for _, name, wnid in annotated if wnid}
    present = {path.name: (wnid, path) for wnid, paths in by_folder.items() for path in paths}
    for name in told.keys() & present.keys():
        wnid, path = present[name]
        if told[name] != wnid:
            raise DataError(
                f"{path}: {annotations} says that its class is {told[name]}; move it there, or correct that"
            )
    absent = [name for name, wnid in told.items() if name not in present and wnid in by_folder]
    if absent and len(absent) < len(told):  # a script may have given all of them other names
        notes.append(
            f"{TITLE}: {counted(len(absent), 'picture')} of {annotations} not in the class folders, such as {absent[0]}"
        )
