"""fashionMNIST: four idx files, gzipped or plain, in torchvision's folder or in the data root itself."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..download import fetch
from ..errors import DataError
from ..resource import RemoteFile, Resource
from .images import Images

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

_FOLDER = "FashionMNIST/raw"
_ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"


def _file(stem: str, md5: str) -> RemoteFile:
    also = (f"{_FOLDER}/{stem}", f"{stem}.gz", stem)
    return RemoteFile(f"{_FOLDER}/{stem}.gz", f"{_ADDRESS}/{stem}.gz", md5, also=also)


RESOURCE = Resource(
    "fashionMNIST",
    _FOLDER,
    (
        _file("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _file("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe"),
        _file("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79"),
        _file("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)


def load(root: Path, _image_size: int) -> Images:
    """Read fashionMNIST: images uint8 (rows, 1, 28, 28)."""
    fetch(RESOURCE, root)
    train_images, train_labels, test_images, test_labels = (
        read_idx(file.find(root) or root / file.path, dimensions)
        for file, dimensions in zip(RESOURCE.files, (3, 1, 3, 1), strict=True)
    )
    return Images(CLASSES, (train_images[:, None], train_labels.long()), (test_images[:, None], test_labels.long()))


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of bytes as uint8 with that many dimensions; it may be gzipped, whatever its name."""
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
