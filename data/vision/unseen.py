"""Pictures that are in no data set, read as those of one: what a trained network is given to predict."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .augment import VisionTransform
from .load import resize
from .pictures import read_picture

#: Pictures that are decoded at once.
DECODERS = 4


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a data set's images have gone through before the network saw them.

    A picture is brought to the size in which the data set stores its images, and then to the network's, as they were:
    a file that holds one of its images becomes that image, bit for bit.
    """

    channels: int
    """1 for gray, 3 for RGB."""
    stored_size: tuple[int, int]
    """Height and width in the data set."""
    size: int
    """Height and width that the network takes."""
    mean: tuple[float, ...]
    """By channel, of the training images in [0, 1]."""
    std: tuple[float, ...]

    def read(self, files: Sequence[Path]) -> Tensor:
        """Return the pictures as uint8 (files, channels, size, size). Raises DataError, which names the file."""
        with ThreadPoolExecutor(DECODERS) as decoders:  # Pillow releases the GIL while it decodes
            return resize(torch.from_numpy(np.stack(list(decoders.map(self._stored, files)))), self.size)

    def transform(self) -> VisionTransform:
        """Return what turns a batch of them into the network's input."""
        return VisionTransform(torch.tensor(self.mean), torch.tensor(self.std), "none")

    def _stored(self, file: Path) -> np.ndarray:
        pixels, _ = read_picture(file, self.stored_size, remedy="replace it, or leave it out")
        if self.channels == 1:
            # The weights of this conversion sum to one, so a gray picture stays exactly as it is.
            pixels = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]
        return pixels
