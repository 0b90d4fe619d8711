"""CIFAR-10 and CIFAR-100, in both official layouts: Python pickles and plain binary."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..download import locate, unpack_provided
from ..errors import DataError
from ..resource import Resource, archive
from ..storage.folders import find_folder, kind, names_in, skipped_notes, unreadable
from ..storage.pickles import load_restricted
from ..storage.records import read_lines
from .arrays import as_bytes, as_images, as_labels, looks_channels_last, refused
from .images import Images, Labeled

_ADDRESS = "https://www.cs.toronto.edu/~kriz"

CIFAR10 = archive(
    "cifar10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    f"{_ADDRESS}/cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    markers=("data_batch_[1-5]", "test_batch"),
    distinctive=True,
)
CIFAR100 = archive(
    "cifar100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    f"{_ADDRESS}/cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
    markers=("train", "test", "meta"),
    distinctive=True,
)
#: The binary layout has no download of its own: it is used where it is there.
CIFAR10_BINARY = Resource(
    "cifar10",
    "cifar-10-batches-bin",
    markers=("data_batch_[1-5].bin", "test_batch.bin"),
    distinctive=True,
    archives=("cifar-10-binary",),
)
CIFAR100_BINARY = Resource(
    "cifar100",
    "cifar-100-binary",
    markers=("train.bin", "test.bin"),
    distinctive=True,
    archives=("cifar-100-binary",),
)

SIDE = 32
PIXELS = 3 * SIDE * SIDE
FORMS = f"uint8 (n, {PIXELS}), (n, 3, {SIDE}, {SIDE}) or (n, {SIDE}, {SIDE}, 3)"


class _Layout(NamedTuple):
    """The names of the files, and where in them the class names and the labels stand."""

    classes: int
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str
    leading: int
    """Binary: the labels that come before the pixels of an image; the last of them counts."""


_LAYOUTS = {
    "cifar10": _Layout(
        10, tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "label_names", "labels", 1
    ),
    "cifar100": _Layout(100, ("train",), "test", "meta", "fine_label_names", "fine_labels", 2),
}
#: Of the binary layout, beside what follows from the names above.
_BINARY_NAMES = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt"}
_OFFICIAL_CLUTTER = "file.txt~"  # lies in the official archive of CIFAR-100


def load_cifar10(root: Path, _image_size: int) -> Images:
    """Read CIFAR-10: the binary layout where its folder is there, else the pickles, which are downloaded if missing."""
    return _load(root, CIFAR10_BINARY, CIFAR10)


def load_cifar100(root: Path, _image_size: int) -> Images:
    """Read CIFAR-100 in the same way, with its 100 fine labels."""
    return _load(root, CIFAR100_BINARY, CIFAR100)


def _load(root: Path, binary: Resource, pickled: Resource) -> Images:
    for resource in (binary, pickled):
        found = find_folder(root, resource.result, resource.markers, title=resource.name, distinctive=True)
        if found:
            return _read(resource.name, *found, binary=resource is binary)
    if not unpack_provided(pickled, root) and unpack_provided(binary, root):
        return _read(binary.name, root / binary.result, [], binary=True)
    return _read(pickled.name, *locate(pickled, root), binary=False)


def _read(name: str, folder: Path, notes: list[str], *, binary: bool) -> Images:
    """Read the files in `folder`: images uint8 (rows, 3, 32, 32).

    CIFAR-10 may have any of its five training files, and a note says which are missing. `DataError` names the file
    that is missing or does not hold what it should.
    """
    layout, ending = _LAYOUTS[name], ".bin" if binary else ""
    skipped: list[str] = []
    present = {file: folder / file for file in names_in(folder, skipped)}
    train = [f"{stem}{ending}" for stem in layout.train]
    absent = [file for file in train if file not in present]
    for needed in (*(train[:1] if len(absent) == len(train) else ()), f"{layout.test}{ending}"):
        if needed not in present:
            raise DataError(f"{folder / needed}: is missing; unpack the official archive again")
    if absent:
        notes = [*notes, f"{name}: trained without {', '.join(absent)}: not in {folder}"]
    notes += skipped_notes(name, [file for file in skipped if file != _OFFICIAL_CLUTTER])
    read = _read_binary if binary else _read_pickle
    parts = [read(present[file], layout) for file in train if file in present]
    test = read(present[f"{layout.test}{ending}"], layout)
    classes = [str(number) for number in range(layout.classes)]
    meta = _BINARY_NAMES[name] if binary else layout.meta
    if meta in present:
        classes = _class_names(present[meta], layout, binary=binary)
        highest = max((int(labels.max()) for _, labels in (*parts, test) if len(labels)), default=0)
        if highest >= len(classes):
            raise DataError(
                f"{present[meta]}: the number of class names is {len(classes)}, but there is a class {highest}; "
                "fetch it again, or remove it: the classes then have numbers for names"
            )
    images, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return Images(classes, (images, labels), test, notes)


def _class_names(path: Path, layout: _Layout, *, binary: bool) -> list[str]:
    if binary:
        return [line.strip() for line in read_lines(path) if line.strip()]
    entry = load_restricted(path).get(layout.names)
    if not isinstance(entry, list) or not entry:
        raise DataError(f"{path}: has no list {layout.names!r}; fetch it again")
    return [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in entry]


def _read_pickle(path: Path, layout: _Layout) -> Labeled:
    content = load_restricted(path)
    data, what = content.get("data"), f"{path}: 'data'"
    pixels = as_bytes(data)
    if pixels is not None and pixels.ndim == 2 and pixels.shape[1] == PIXELS:
        if looks_channels_last(pixels, SIDE):
            raise DataError(
                f"{what} is uint8 {pixels.shape} with the colors of each pixel side by side, but the official order is "
                f"three planes; save it in the shape (n, {SIDE}, {SIDE}, 3), or fetch it again"
            )
        pixels = pixels.reshape(-1, 3, SIDE, SIDE)
    images = as_images(data if pixels is None else pixels, what, FORMS)
    if images.shape[1:] != (3, SIDE, SIDE):
        raise refused(data, what, FORMS)
    return images, as_labels(content.get(layout.labels), len(images), f"{path}: {layout.labels!r}")


def _read_binary(path: Path, layout: _Layout) -> Labeled:
    width = layout.leading + PIXELS
    if kind(path) == "folder":
        raise DataError(f"{path}: is a folder; expected a file")
    try:
        rows = np.fromfile(path, np.uint8)
    except OSError as error:
        raise unreadable(path, error) from error
    if rows.size % width or not rows.size:
        raise DataError(f"{path}: is not rows of {width} bytes; fetch it again")
    table = torch.from_numpy(rows.reshape(-1, width))
    # CIFAR-100 has two labels per image, and the second is the fine one.
    return table[:, layout.leading :].reshape(-1, 3, SIDE, SIDE), table[:, layout.leading - 1].long()
