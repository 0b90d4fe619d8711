"""Load a vision data set: call its reader, check what it returns, bring the images to one size, and divide train.

A reader uses the files under the data root as they are, with fewer rows or classes if that is what they hold; only
missing files are downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from ..dataset import Dataset, make_dataset
from ..errors import DataError
from ..registry import entry, resolve
from ..storage.folders import unreadable
from .images import Images, Labeled


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

    Images are uint8 (rows, C, image_size, image_size). Images of another size are resized here, once; the aspect
    ratio is not kept. `image_size` None is the data set's default (see `DatasetEntry`). The official test set
    (tinyImageNet: the official val set) is `test`; `val` is taken from train by `seed`.

    Raises:
        DataError: an unknown name, a missing file that could not be downloaded, or a file that does not hold what it
            should; the message names it.
    """
    found = entry(name, "vision")
    name = found.name
    size = found.image_size if image_size is None else image_size
    if size < 1:
        raise DataError(f"image_size: got {size}; expected a number of pixels, 1 or more")
    try:
        images = resolve(found.load, name)(root, size)
    except OSError as error:
        if not error.filename:  # not about a file, such as a terminal that is gone
            raise
        raise unreadable(Path(os.fsdecode(error.filename)), error) from error
    if not isinstance(images, Images):
        raise DataError(f"{name}: its load function returned {type(images).__name__}; expected data.Images")
    if len(images.classes) < 2:
        raise DataError(f"{name}: has one class only ({', '.join(images.classes)}); give it at least 2")
    for part, labeled in (("train", images.train), ("test", images.test)):
        _check(f"{name} {part} set in {root}", labeled, len(images.classes))
    channels = [labeled[0].shape[1] for labeled in (images.train, images.test)]
    if channels[0] != channels[1]:
        raise DataError(f"{name}: train images have {channels[0]} channels and test images {channels[1]}")
    dataset = make_dataset(
        name,
        images.classes,
        (resize(images.train[0], size), images.train[1]),
        (resize(images.test[0], size), images.test[1]),
        val_fraction=val_fraction,
        seed=seed,
        limit_train=limit_train,
        stored_size=(images.train[0].shape[2], images.train[0].shape[3]),
        notes=images.notes,
    )
    if len(dataset.train) < 2:
        raise DataError(
            f"{name}: 1 of {len(images.train[1])} training images is left to train on, but batch normalization "
            "needs 2; add images, or lower val_fraction"
        )
    return dataset


def _check(what: str, labeled: Labeled, classes: int) -> None:
    images, labels = labeled
    if images.dtype != torch.uint8 or images.dim() != 4:
        kind = f"{images.dtype} {tuple(images.shape)}".removeprefix("torch.")
        raise DataError(f"{what}: the images are {kind}; expected uint8 (rows, channels, height, width)")
    if labels.dtype != torch.int64 or labels.dim() != 1:
        kind = f"{labels.dtype} {tuple(labels.shape)}".removeprefix("torch.")
        raise DataError(f"{what}: the labels are {kind}; expected int64 (rows,)")
    if len(images) != len(labels):
        raise DataError(f"{what}: {len(images)} images but {len(labels)} labels; fetch its files again")
    if len(labels) == 0:
        raise DataError(f"{what}: holds no images; fetch its files again")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{what}: a label is outside 0..{classes - 1}; fetch its files again")


def resize(images: Tensor, size: int) -> Tensor:
    """Return uint8 (rows, C, size, size), bilinear and antialiased; the tensor itself if it has that size."""
    if images.shape[-2:] == (size, size):
        return images
    resized = images.new_empty(len(images), images.shape[1], size, size)
    for source, target in zip(torch.split(images, 4096), torch.split(resized, 4096), strict=True):
        target.copy_(tvf.resize(source, [size, size], antialias=True))
    return resized
