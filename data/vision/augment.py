"""From stored images to a network's input: augmented per sample, scaled and normalized, all as batched tensor ops.

B batch, C channels, H height, W width. Every random number comes from the generator that is passed in, one draw per
sample, so a batch is a function of (images, generator) on whatever device the images are. Nothing here waits for the
GPU after the first batch on a device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dataset import Split
from ..errors import DataError
from ..registry import AUGMENTATIONS, entry

PAD_SHARE = 8  # the crop moves by up to a side over this: 4 pixels of 32
JITTER = 0.4  # factors are uniform in 1 - JITTER .. 1 + JITTER
GRAY = 0.2  # probability
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in every image library


def default_augmentation(name: str) -> str:
    """Return what `augmentation="auto"` means for a vision data set (see `DatasetEntry`). Raises DataError."""
    return entry(name, "vision").augmentation


def channel_stats(split: Split, sample: int = 10_000) -> tuple[Tensor, Tensor]:
    """Return (mean, std) per channel in [0, 1], float32 (C,), of the first `sample` images of a vision split.

    The rows of a train split are shuffled, so the first ones are a fair and fixed sample.
    """
    images, _ = split.rows(torch.arange(min(len(split), sample)))
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise DataError("channel_stats: the split does not hold uint8 images")
    pixels = images.transpose(0, 1).flatten(1)
    # Counting the 256 values is exact, and needs no copy of the images in floating point.
    counts = torch.stack([channel.int().bincount(minlength=256) for channel in pixels]).double()
    share = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    variance = share @ values**2 - mean**2
    # A constant channel must not be divided by 0; one step of the 256 is the least that can be seen.
    return mean.float(), variance.clamp(min=0).sqrt().clamp(min=1 / 255).float()


def crop_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Crop each image from its zero-padded self and mirror it where `flip` is true; (B, C, H, W), any dtype.

    `down`, `right`: int64 (B,), the upper left corner of the crop in the padded image, from 0 to twice the padding,
    which is H or W over `PAD_SHARE`. `flip`: bool (B,).
    """
    B, C, H, W = images.shape
    tall, wide = H // PAD_SHARE, W // PAD_SHARE
    padded = F.pad(images, (wide, wide, tall, tall))
    rows = down[:, None] + torch.arange(H, device=images.device)  # (B, H)
    across = torch.arange(W, device=images.device)
    columns = right[:, None] + torch.where(flip[:, None], W - 1 - across, across)  # (B, W)
    # One look-up does both: a mirrored image is only another order of the columns.
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(B, 1, H * W)
    return padded.flatten(2).gather(2, pixels.expand(B, C, H * W)).view(B, C, H, W)


class _Constants(NamedTuple):
    mean: Tensor
    std: Tensor
    luma: Tensor


class VisionTransform:
    """Turn uint8 images (B, C, H, W) into normalized float32 ones, augmented if a generator is given.

    `mean`, `std`: float32 (C,), as `channel_stats` returns them. `augmentation`: "none"; "basic", a random crop of the
    image padded by an eighth of its side, and a mirror for half of the samples; "strong", which adds jitter of
    brightness, contrast and saturation, and turns a fifth of the samples gray. Each sample draws for itself. With one
    channel there is no saturation and no gray.
    """

    def __init__(self, mean: Tensor, std: Tensor, augmentation: str) -> None:
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation: got {augmentation!r}; expected one of {', '.join(AUGMENTATIONS)}")
        self.augmentation = augmentation
        luma = torch.tensor(LUMA, dtype=torch.float32, device=mean.device)
        self._constants = {mean.device: _Constants(*(values.view(-1, 1, 1) for values in (mean, std, luma)))}

    def __call__(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W) on the images' device; without a generator nothing is random."""
        constants = self._constants_on(images.device)
        if generator is not None and self.augmentation != "none":
            images = self._crop_flip(images, generator)
        scaled = images.float().div_(255)
        if generator is not None and self.augmentation == "strong":
            scaled = self._jitter_colors(scaled, generator, constants.luma)
        return scaled.sub_(constants.mean).div_(constants.std)

    def _constants_on(self, device: torch.device) -> _Constants:
        # A copy from the host waits for the GPU, so each device gets its copy once and not at every batch.
        if device not in self._constants:
            first = next(iter(self._constants.values()))
            self._constants[device] = _Constants(*(values.to(device) for values in first))
        return self._constants[device]

    @staticmethod
    def _crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
        H, W = images.shape[2:]
        # Drawn as integers: a float in [0, 1) times `count` would, once in millions, round up to `count`.
        down, right, flip = (
            torch.randint(count, (len(images),), generator=generator, device=generator.device).to(images.device)
            for count in (2 * (H // PAD_SHARE) + 1, 2 * (W // PAD_SHARE) + 1, 2)
        )
        return crop_flip(images, down, right, flip.bool())

    @staticmethod
    def _jitter_colors(images: Tensor, generator: torch.Generator, luma: Tensor) -> Tensor:
        """Jitter the colors of float32 images in [0, 1], in place; they stay in [0, 1]."""
        drawn = torch.rand(4, len(images), 1, 1, 1, generator=generator, device=generator.device).to(images.device)
        brightness, contrast, saturation = 1 + JITTER * (2 * drawn[:3] - 1)
        images.mul_(brightness).clamp_(max=1)
        middle = _gray(images, luma).mean((1, 2, 3), keepdim=True)
        images.sub_(middle).mul_(contrast).add_(middle).clamp_(0, 1)
        if images.shape[1] == 1:
            return images
        # Gray is saturation 0, so one blend does both.
        saturation = torch.where(drawn[3] < GRAY, torch.zeros_like(saturation), saturation)
        gray = _gray(images, luma)
        return images.sub_(gray).mul_(saturation).add_(gray).clamp_(0, 1)


def _gray(images: Tensor, luma: Tensor) -> Tensor:
    """Return the luma of RGB images, or the mean of any other number of channels, (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * luma).sum(1, keepdim=True)
