"""Arrays of pictures as data files hold them, turned into the one form that the rest of the package knows.

What is certain is recognized; a guess between two readings would scramble the pictures without a word, so anything
else is refused with its shape and type.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

CHANNELS = (1, 3)
SAMPLE = 1000  # pictures that are looked at
ROUGHER = 1.25  # times; photographs: 0.5 if their channels come first, 1.6 (gray ones) to 2.6 if they come last


def as_images(array: object, what: str, expected: str) -> Tensor:
    """Return uint8 (rows, C, H, W) from whole numbers (rows, H, W), (rows, C, H, W) or (rows, H, W, C); C is 1 or 3.

    `what` names the file and `expected` says what it should hold, for the message of the DataError.
    """
    if not isinstance(array, np.ndarray):
        raise DataError(f"{what} is a {type(array).__name__}; expected {expected}; fetch it again")
    refused = DataError(
        f"{what} is {array.dtype} {array.shape}; expected {expected}; fetch it again, or save it in one of these forms"
    )
    array = array[:, None] if array.ndim == 3 else array
    first, last = (array.ndim == 4 and array.shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        raise refused
    pixels = as_bytes(array)
    if pixels is None:
        raise refused
    return torch.tensor(np.ascontiguousarray(pixels if first else pixels.transpose(0, 3, 1, 2)))


def as_bytes(array: np.ndarray) -> np.ndarray | None:
    """Return an array of whole numbers in 0..255 as uint8; None for any other: its scale is not known."""
    if array.dtype == np.uint8:
        return array
    whole = np.issubdtype(array.dtype, np.integer) and (array.size == 0 or (array.min() >= 0 and array.max() <= 255))
    return array.astype(np.uint8) if whole else None


def as_labels(values: object, rows: int, what: str) -> Tensor:
    """Return int64 (rows,) from a list or array of whole numbers, (rows,) or (rows, 1). Raises DataError."""
    try:
        labels = torch.tensor(np.asarray(values).astype(np.int64, casting="safe"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} is not a list of whole numbers; fetch it again") from error
    if labels.dim() != 1 and tuple(labels.shape) != (rows, 1):
        raise DataError(f"{what} has the shape {tuple(labels.shape)}; expected one number per image; fetch it again")
    if labels.numel() != rows:
        raise DataError(f"{what}: {rows} images but {labels.numel()} labels; fetch it again")
    return labels.flatten()


def looks_channels_last(rows: np.ndarray, side: int) -> bool:
    """Tell whether rows of RGB bytes hold the three numbers of a pixel side by side instead of three planes.

    uint8 (rows, 3 * side * side). In a picture neighbors are alike, so it is smoother read in the right way; see
    `ROUGHER`. Noise is equally rough either way, and then the answer is no.
    """
    sample = rows[:SAMPLE].astype(np.int16)
    planes = sample.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    return bool(_roughness(planes) > ROUGHER * _roughness(sample.reshape(-1, side, side, 3)))


def _roughness(images: np.ndarray) -> float:
    """Return the mean difference of neighboring pixels of (rows, H, W, C)."""
    return float(sum(np.abs(np.diff(images, axis=axis)).mean() for axis in (1, 2))) if len(images) else 0.0
