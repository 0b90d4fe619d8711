"""Picture files: which files are pictures, and how each is read as 8-bit RGB.

A picture may hold more than the network is given: transparency, 16 bits, several frames. What that leaves out, or how
it is shown, is returned as facts, which end in notes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError
from ..storage.folders import unreadable

#: What is read. PIL knows more, but some of those start other programs (EPS) or are no pictures (PDF, FITS).
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")

# The facts, each a sentence about "n pictures".
DEPTH = "of 16 bits or floating-point numbers scaled to 8 bits"
DARK = "of 16 bits with no value above 4095, and so nearly black: scale them up if they hold 8, 10 or 12 bits"
TRANSPARENT = "with transparent parts shown on white"
FRAMES = "with several frames or pages: the first is read"
TURNED = "turned upright as their EXIF orientation says"
PRINTED = "in CMYK converted to RGB without their color profile"

_ORIENTATION = 0x0112  # in EXIF


@cache
def formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that the installed PIL can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Return the endings of files, in lower case, that are read as pictures."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats())


def is_picture(name: str) -> bool:
    """Tell by its ending whether a file is read as a picture."""
    return os.path.splitext(name)[1].lower() in suffixes()


def read_picture(
    path: Path, size: int | tuple[int, int], *, remedy: str = "restore it from the official archive"
) -> tuple[np.ndarray, list[str]]:
    """Return (uint8 RGB (3, height, width), facts); another size is resized (bilinear, antialiased).

    `size`: height and width, or one number for both. `remedy`: what to do about a damaged file, for the message. Raises
    DataError for a file that cannot be read, is damaged, or has no known scale from black to white.
    """
    height, width = (size, size) if isinstance(size, int) else size
    facts: list[str] = []
    try:
        with Image.open(path, formats=formats()) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's second frame is a preview
                facts.append(FRAMES)
            if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
                facts.append(TURNED)
                square = _to_rgb(ImageOps.exif_transpose(image), path, image.format, facts)
            else:
                square = _to_rgb(image, path, image.format, facts)
            square = square.resize((width, height), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        # A damaged file can make a decoder raise almost any exception.
        reason = "not a picture of a known format" if isinstance(error, UnidentifiedImageError) else error
        reason = " ".join(str(reason).split())[:200] or type(error).__name__
        raise DataError(f"{path}: damaged image ({reason}); {remedy}") from error
    pixels: np.ndarray = np.asarray(square).transpose(2, 0, 1)
    return pixels, facts


def _to_rgb(image: Image.Image, path: Path, kind: str | None, facts: list[str]) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        facts.append(DEPTH)
        return Image.fromarray(_to_bytes(image, path, kind, facts)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colors = image.convert("RGBA")
        if colors.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        # Dropping the transparency would show what its author hid, which is often black or noise.
        facts.append(TRANSPARENT)
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colors).convert("RGB")
    if image.mode == "CMYK":
        facts.append(PRINTED)
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise DataError(f"{path}: a picture of mode {image.mode}, which has no certain form in RGB; save it as RGB")
    return image.convert("RGB")


def _to_bytes(image: Image.Image, path: Path, kind: str | None, facts: list[str]) -> np.ndarray:
    """Return gray values of more than 8 bits as uint8; PIL would cut off everything above 255 instead."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    # Some versions of PIL read 16-bit PNG and PGM files as 32-bit numbers, which in other files have no scale.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM") and 0 <= low <= high <= 65535):
        if 0 < high < 1 << 12:
            facts.append(DARK)
        rounded: np.ndarray = (values.astype(np.uint32) + 128) // 257  # 65535 / 255 = 257
        return rounded.astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 255:  # false for NaN
        scaled: np.ndarray = np.rint(values * (255 if high <= 1 else 1))
        return scaled.astype(np.uint8)
    raise DataError(
        f"{path}: a picture of mode {image.mode} with values from {low:g} to {high:g}, whose black and white are not "
        "known; save it with 8 or 16 bits"
    )
