"""fashionMNIST: four idx files, gzipped or plain, in torchvision's folder or in the data root itself."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ..download import fetch
from ..errors import DataError
from ..resource import RemoteFile, Resource
from ..storage.folders import find_folder, kind, names_in, skipped_notes, unreadable
from .arrays import as_images, as_labels
from .images import Images, Labeled

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

_FOLDER = "FashionMNIST/raw"
_ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}

RESOURCE = Resource(
    "fashionMNIST",
    _FOLDER,
    tuple(
        RemoteFile(f"{_FOLDER}/{stem}.gz", f"{_ADDRESS}/{stem}.gz", md5, also=(f"{_FOLDER}/{stem}", f"{stem}.gz", stem))
        for stem, md5 in _MD5.items()
    ),
    markers=tuple(f"{stem}*" for stem in _MD5),
    archives=("FashionMNIST", "fashion-mnist", "fashion-mnist-master"),
)

#: The number of labels in the two official files, and the first ones. MNIST and others have files of the same names.
_OFFICIAL = ((60_000, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]), (10_000, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]))

#: The types of an idx file by the third byte of its header.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 24  # bytes


def load(root: Path, _image_size: int) -> Images:
    """Read fashionMNIST: images uint8 (rows, 1, 28, 28)."""
    paths, notes = _locate(root)
    skipped: list[str] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        names_in(folder, skipped)
    notes += skipped_notes(RESOURCE.name, skipped)
    train, test = _pair(paths[0], paths[1]), _pair(paths[2], paths[3])
    for path, (_, labels), (count, first) in zip(paths[1::2], (train, test), _OFFICIAL, strict=True):
        if len(labels) == count and labels[: len(first)].tolist() != first:
            notes.append(
                f"{RESOURCE.name}: {path} has as many labels as the official file, but others: does it belong to "
                "MNIST or KMNIST, whose files have the same names?"
            )
    return Images(CLASSES, train, test, notes)


def _locate(root: Path) -> tuple[list[Path], list[str]]:
    """Return the four files, and notes if they are in an unusual folder; unpack or download them if need be."""
    if any(file.find(root) for file in RESOURCE.files):
        fetch(RESOURCE, root)  # only what is missing
    elif found := _unusual_folder(root):
        return [_in_folder(found, stem) for stem in _MD5], [
            f"{RESOURCE.name}: read from {found}; its usual place is {root / _FOLDER}"
        ]
    else:
        fetch(RESOURCE, root)
    return [
        file.find(root) or _in_folder(root / _FOLDER, stem) for file, stem in zip(RESOURCE.files, _MD5, strict=True)
    ], []


def _unusual_folder(root: Path) -> Path | None:
    names = [_FOLDER, "FashionMNIST", "fashion-mnist"]
    if root.resolve().name.casefold() == "fashionmnist":  # under another name, `raw` may as well be MNIST's
        names.append("raw")
    found = (find_folder(root, name, RESOURCE.markers, title=RESOURCE.name) for name in names)
    return next((each[0] for each in found if each), None)


def _in_folder(folder: Path, stem: str) -> Path:
    path = next((folder / name for name in (f"{stem}.gz", stem) if kind(folder / name) == "file"), None)
    if path is None:
        raise DataError(f"{folder / stem}.gz: is missing; put the official file there, beside the others")
    return path


def _pair(images: Path, labels: Path) -> Labeled:
    pixels = as_images(read_idx(images), f"{images}: its content", "uint8 (n, height, width)")
    return pixels, as_labels(read_idx(labels), len(pixels), f"{labels}: its content")


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of any type and number of dimensions; it may be gzipped, whatever its name. Raises DataError."""
    if kind(path) == "folder":
        raise DataError(f"{path}: is a folder; expected a file")
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
            sizes = file.read(4 * magic[3]) if len(magic) == 4 else b""
            if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or len(sizes) != 4 * magic[3]:
                raise DataError(f"{path}: is not an idx file; fetch it again")
            dtype, shape = np.dtype(_DTYPES[magic[2]]), tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            expected = prod(shape) * dtype.itemsize
            content = bytearray()
            # In parts: the header of a damaged file may state a size that no memory has.
            while len(content) <= expected and (part := file.read(min(_CHUNK, expected + 1 - len(content)))):
                content += part
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) != expected:
        less = "fewer" if len(content) < expected else "more"
        raise DataError(f"{path}: holds {less} than the {expected} bytes that its header states; fetch it again")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
