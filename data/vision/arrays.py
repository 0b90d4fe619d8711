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
    pixels = as_bytes(array)
    if pixels is None:
        raise refused(array, what, expected)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels
    first, last = (pixels.ndim == 4 and pixels.shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        raise refused(array, what, expected)
    return torch.tensor(np.ascontiguousarray(pixels if first else pixels.transpose(0, 3, 1, 2)))


def refused(array: object, what: str, expected: str) -> DataError:
    """Return the error that says what something is instead of what was expected."""
    shown = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
    return DataError(f"{what} is {shown}; expected {expected}; fetch it again, or save it in such a form")


def as_bytes(array: object) -> np.ndarray | None:
    """Return an array of whole numbers in 0..255 as uint8; None for anything else: its scale is not known."""
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        return None
    if array.dtype != np.uint8 and array.size and not 0 <= array.min() <= array.max() <= 255:
        return None
    return array.astype(np.uint8, copy=False)


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
