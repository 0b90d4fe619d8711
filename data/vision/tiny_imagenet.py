"""tinyImageNet: the JPEG files of the official zip, decoded once into two memory-mapped arrays.

The official `val` set has all its images in one folder and their classes in `val_annotations.txt`. Reading it as a
folder per class would give one class and wrong labels, so where that file exists it decides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..download import fetch
from ..errors import DataError
from ..resource import archive
from ..storage.files import atomic_write, exclusive_lock, remove_stale
from .images import Images

RESOURCE = archive(
    "tinyImageNet",
    "tiny-imagenet-200",
    "tiny-imagenet-200.zip",
    "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    markers=("train", "val", "wnids.txt"),
    distinctive=True,
)

SUFFIXES = (".jpeg", ".jpg", ".png")
CHUNK = 512  # images that are decoded between two writes
VERSION = 1  # of the cache: increase it when the same files decode to other pixels

Listing = tuple[list[Path], list[int]]  # image files, their class numbers


def load(root: Path, image_size: int) -> Images:
    """Read tinyImageNet; the decoded images are cached in `root/.cache`."""
    return read_tiny_imagenet(fetch(RESOURCE, root), image_size, cache=root / ".cache")


def read_tiny_imagenet(folder: Path, size: int, *, cache: Path) -> Images:
    """Read the folder `tiny-imagenet-200`; images are uint8 (rows, 3, size, size).

    The classes are those of `wnids.txt`, in its order. The official val set is the test set. Gray images become RGB.
    The decoded images are kept in `cache` and mapped into memory; where it cannot be written they are held in memory
    and a note says so. `DataError` names the file, and the line, of a missing or damaged image, a missing annotation,
    or a class that wnids.txt does not list.
    """
    wnids = _wnids(folder / "wnids.txt")
    notes: list[str] = []
    train = _by_folder(folder / "train", wnids)
    extra = sum(1 for entry in (folder / "train").iterdir() if entry.is_dir() and entry.name not in wnids)
    if extra:
        notes.append(f"tinyImageNet: {extra} folders in {folder / 'train'} are left out: not listed in wnids.txt")
    test = _test(folder / "val", wnids)
    sets = [
        (_load_or_decode(files, size, cache, part, folder, notes), torch.tensor(labels))
        for part, (files, labels) in (("train", train), ("val", test))
    ]
    return Images(_class_names(folder / "words.txt", wnids), sets[0], sets[1], notes)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines that are not blank."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); unpack the official zip again") from error
    yield from ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _wnids(path: Path) -> dict[str, int]:
    """Return the class number of each wnid."""
    wnids: dict[str, int] = {}
    for number, line in _lines(path):
        if wnids.setdefault(line.strip(), len(wnids)) != len(wnids) - 1:
            raise DataError(f"{path}, line {number}: {line.strip()} is listed twice; remove one")
    if not wnids:
        raise DataError(f"{path}: lists no class; unpack the official zip again")
    return wnids


def _class_names(path: Path, wnids: dict[str, int]) -> list[str]:
    """Return the first word that words.txt has for each class, and the wnid where it has none."""
    words: dict[str, str] = {}
    if path.is_file():
        for _, line in _lines(path):
            wnid, _, names = line.partition("\t")
            words[wnid.strip()] = names.partition(",")[0].strip()
    return [words.get(wnid) or wnid for wnid in wnids]


def _by_folder(folder: Path, wnids: dict[str, int]) -> Listing:
    """List the images of `<wnid>/images/`, or of `<wnid>/` itself, in the order of classes and names."""
    files: list[Path] = []
    labels: list[int] = []
    for wnid, label in wnids.items():
        inner = folder / wnid / "images"
        found = _images(inner if inner.is_dir() else folder / wnid)
        if not found:
            raise DataError(
                f"{folder / wnid}: holds no images of this class; unpack the official zip again, or take the "
                "class out of wnids.txt and val_annotations.txt"
            )
        files += found
        labels += [label] * len(found)
    return files, labels


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))
    return [folder / name for name in names]


def _test(folder: Path, wnids: dict[str, int]) -> Listing:
    """List the official val set, or one that has been sorted into a folder per class."""
    annotations, images = folder / "val_annotations.txt", folder / "images"
    if annotations.is_file() and images.is_dir():
        return _annotated(annotations, images, wnids)
    if any((folder / wnid).is_dir() for wnid in wnids):
        return _by_folder(folder, wnids)
    raise DataError(
        f"{folder}: has neither val_annotations.txt with images/ nor a folder per class; unpack the official zip again"
    )


def _annotated(annotations: Path, images: Path, wnids: dict[str, int]) -> Listing:
    present = {path.name: path for path in _images(images)}
    labels: dict[str, int] = {}
    for number, line in _lines(annotations):
        where = f"{annotations}, line {number}"
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in wnids:
            raise DataError(f"{where}: wnids.txt lists no class {wnid!r}; add it there, or remove the line")
        if name not in present:
            raise DataError(f"{where}: there is no image {images / name}; restore it, or remove the line")
        if name in labels:
            raise DataError(f"{where}: {name} is annotated twice; remove one of the lines")
        labels[name] = wnids[wnid]
    for name in sorted(present.keys() - labels.keys()):
        raise DataError(f"{images / name}: {annotations.name} has no line for it; add one, or remove the image")
    return [present[name] for name in labels], list(labels.values())


def _load_or_decode(files: list[Path], size: int, cache: Path, part: str, folder: Path, notes: list[str]) -> Tensor:
    """Return the images, uint8 (rows, 3, size, size), from the cache if it holds exactly these files."""
    shape = (len(files), 3, size, size)
    path = cache / f"tinyImageNet-{part}-{size}-{_key(files, size, folder)}.npy"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache / ".lock"):  # of several runs that start together, one decodes
            images = _mapped(path, shape)
            if images is None:
                remove_stale(cache, path.name)  # a killed run may have left a gigabyte
                _write(path, shape, files, size, part)
                images = _mapped(path, shape)
        if images is not None:
            return images
        reason = "the file just written cannot be read back"
    except OSError as error:
        reason = error.strerror or str(error)
    notes.append(f"tinyImageNet: no cache in {cache} ({reason}): every run decodes the images again")
    return torch.from_numpy(np.concatenate(list(_chunks(files, size, part))))


def _key(files: list[Path], size: int, folder: Path) -> str:
    """Return a digest of what the pixels depend on: `size`, and the files' names, sizes and modification times."""
    digest = hashlib.blake2b(f"{VERSION} {size}".encode(), digest_size=8)
    for file in files:
        try:
            facts = file.stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); restore it from the official zip") from error
        digest.update(f"\n{file.relative_to(folder).as_posix()}\t{facts.st_size}\t{facts.st_mtime_ns}".encode())
    return digest.hexdigest()


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Map the array at `path` into memory; return None if it is missing or damaged."""
    try:
        # Copy on write: torch wants writable memory, and the file must not change.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.dtype == np.uint8 and array.shape == shape else None


def _write(path: Path, shape: tuple[int, ...], files: list[Path], size: int, part: str) -> None:
    # Written in sequence rather than through a memory map: there a full disk is a fatal signal, here it is an error.
    with atomic_write(path) as file:
        _write_header(file, shape)
        for chunk in _chunks(files, size, part):
            file.write(chunk.tobytes())


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _chunks(files: list[Path], size: int, part: str) -> Iterator[np.ndarray]:
    """Yield the images in order, uint8 (at most CHUNK, 3, size, size)."""
    workers = min(8, os.cpu_count() or 1)  # Pillow releases the GIL while it decodes, so threads are enough
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(files), desc=f"decoding {part}", unit="image", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(files), CHUNK):
            chunk = np.stack(list(pool.map(lambda file: _decode(file, size), files[start : start + CHUNK])))
            bar.update(len(chunk))
            yield chunk


def _decode(path: Path, size: int) -> np.ndarray:
    """Return the image as RGB, uint8 (3, size, size), resized (bilinear, antialiased) if it has another size."""
    try:
        with Image.open(path) as image:
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged image ({error}); restore it from the official zip") from error
    pixels: np.ndarray = np.asarray(square).transpose(2, 0, 1)
    return pixels
