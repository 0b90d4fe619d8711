"""The vision data sets, each read from its official files into uint8 images of one size.

Files are looked for under the data root and used as they are, with fewer rows or classes if that is what they
hold; only what is absent is downloaded.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from ALPackage.randomness import generator

from ..dataset import Dataset, make_dataset
from ..download import RESOURCES, fetch
from ..errors import DataError
from ..registry import canonical
from .cifar import read_cifar
from .tiny_imagenet import read_tiny_imagenet

Labelled = tuple[Tensor, Tensor]  # images uint8 (rows, C, H, W), labels int64 (rows,)

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@dataclass(frozen=True)
class _Read:
    """What a reader found."""

    classes: list[str]
    train: Labelled
    test: Labelled
    notes: list[str] = field(default_factory=list)


def load_vision(
    name: str,
    *,
    root: Path,
    image_size: int | None = None,
    val_fraction: float,
    seed: int,
    limit_train: int | None = None,
) -> Dataset:
    """Load a vision data set by name (any case), downloading it into `root` if it is not there.

    Images are uint8 (rows, C, image_size, image_size), resized here, once, if they are of another size (a
    side ratio other than 1 is not kept); `image_size` None is 32, and 16 for digits. C is 3, or 1 for
    fashionMNIST and digits. The official test set (tinyImageNet: the official val set) is `test`; `val` is
    taken from train by `seed`. `DataError`: an unknown name, a missing file that could not be downloaded, or a
    file that does not hold what it should; the message names it.
    """
    name = canonical(name, "vision")
    size = image_size if image_size is not None else (16 if name == "digits" else 32)
    if size < 1:
        raise DataError(f"image_size: got {size}; expected a number of pixels, 1 or more")
    read = READERS[name](root, size)
    for part, labeled in (("train", read.train), ("test", read.test)):
        _check(f"{name} {part} set in {root}", labeled, len(read.classes))
    return make_dataset(
        name,
        read.classes,
        (_resized(read.train[0], size), read.train[1]),
        (_resized(read.test[0], size), read.test[1]),
        val_fraction=val_fraction,
        seed=seed,
        limit_train=limit_train,
        notes=read.notes,
    )


def _check(what: str, labeled: Labelled, classes: int) -> None:
    images, labels = labeled
    if len(images) != len(labels):
        raise DataError(f"{what}: {len(images)} images but {len(labels)} labels; fetch its files again")
    if len(labels) == 0:
        raise DataError(f"{what}: holds no images; fetch its files again")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{what}: a label is outside 0..{classes - 1}; fetch its files again")


def _resized(images: Tensor, size: int) -> Tensor:
    """Return uint8 (rows, C, size, size): bilinear, antialiased; the images themselves if that is their size."""
    if images.shape[-2:] == (size, size):
        return images
    resized = images.new_empty(len(images), images.shape[1], size, size)
    for source, target in zip(torch.split(images, 4096), torch.split(resized, 4096), strict=True):
        target.copy_(tvf.resize(source, [size, size], antialias=True))
    return resized


def _tiny_imagenet(root: Path, size: int) -> _Read:
    return _Read(*read_tiny_imagenet(fetch(RESOURCES["tinyImageNet"], root), size, cache=root / ".cache"))


def _cifar(name: str, binary: str) -> Callable[[Path, int], _Read]:
    def read(root: Path, size: int) -> _Read:
        folder = root / binary
        return _Read(*read_cifar(folder if folder.is_dir() else fetch(RESOURCES[name], root)))

    return read


def _fashion_mnist(root: Path, size: int) -> _Read:
    resource = RESOURCES["fashionMNIST"]
    fetch(resource, root)
    train_images, train_labels, test_images, test_labels = (
        _idx(file.find(root) or root / file.path, dimensions)
        for file, dimensions in zip(resource.files, (3, 1, 3, 1), strict=True)
    )
    return _Read(FASHION, (train_images[:, None], train_labels.long()), (test_images[:, None], test_labels.long()))


def _idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of bytes, plain or gzipped whatever its name; uint8 with that many dimensions."""
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            header = np.frombuffer(file.read(4 + 4 * dimensions), ">u4")
            if len(header) != 1 + dimensions or header[0] != 0x800 + dimensions:
                raise DataError(f"{path}: is not an idx file of bytes in {dimensions} dimensions; fetch it again")
            shape = [int(length) for length in header[1:]]
            content = file.read(prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    if len(content) != prod(shape):
        less = "fewer" if len(content) < prod(shape) else "more"
        raise DataError(f"{path}: holds {less} than the {prod(shape)} bytes that its header states; fetch it again")
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8).reshape(shape))


def _digits(root: Path, size: int) -> _Read:
    """Read the digits that come with scikit-learn; every fifth image of a class, drawn once for all, is test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target).long()
    # A fixed stream, whatever the user's seed: the test set is the same in every run that is ever compared.
    shuffled = torch.randperm(len(labels), generator=generator("digits", "test"))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    place = torch.cat([torch.arange(int(count)) for count in labels.bincount()])
    test = place % 5 == 0
    return _Read(
        [str(digit) for digit in bunch.target_names],
        (images[order[~test]], labels[order[~test]]),
        (images[order[test]], labels[order[test]]),
    )


READERS: dict[str, Callable[[Path, int], _Read]] = {
    "tinyImageNet": _tiny_imagenet,
    "cifar10": _cifar("cifar10", "cifar-10-batches-bin"),
    "cifar100": _cifar("cifar100", "cifar-100-binary"),
    "fashionMNIST": _fashion_mnist,
    "digits": _digits,
}
