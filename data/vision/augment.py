"""From stored images to a network's input: scaled, augmented per sample, normalized, all as batched tensor ops.

B batch, C channels, H and W height and width. Every random number comes from the generator that is handed in,
one draw per sample, so a batch is a function of (images, generator) on whatever device the images are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dataset import Split
from ..errors import DataError

#: What can be asked for; "auto" stands for `default_augmentation` of the data set.
AUGMENTATIONS = ("none", "basic", "strong")

PAD_SHARE = 8  # the crop moves by up to a side over this: 4 pixels of 32
JITTER = 0.4  # factors are uniform in 1 - JITTER .. 1 + JITTER
GREY = 0.2  # probability
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in every image library


def default_augmentation(name: str) -> str:
    """Return the augmentation that suits a data set, by its canonical name.

    Digits get none (a mirrored digit is another sign, or none), fashionMNIST has no color to jitter.
    """
    return {"digits": "none", "fashionMNIST": "basic"}.get(name, "strong")


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
    # A channel that never changes must not be divided by 0; one step of the 256 is the least that is seen.
    return mean.float(), variance.clamp(min=0).sqrt().clamp(min=1 / 255).float()


def crop_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Move each image within its zero-padded self and mirror it where `flip` says so; (B, C, H, W), any dtype.

    `down`, `right`: int64 (B,), the upper left corner of the window in the image padded by `PAD_SHARE`, so from 0
    to twice the padding. `flip`: bool (B,).
    """
    B, C, H, W = images.shape
    tall, wide = H // PAD_SHARE, W // PAD_SHARE
    padded = F.pad(images, (wide, wide, tall, tall))
    rows = down[:, None] + torch.arange(H, device=images.device)  # (B, H)
    across = torch.arange(W, device=images.device)
    columns = right[:, None] + torch.where(flip[:, None], W - 1 - across, across)  # (B, W)
    # One look-up moves and mirrors: the mirror is only another order of the columns.
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(B, 1, H * W)
    return padded.flatten(2).gather(2, pixels.expand(B, C, H * W)).view(B, C, H, W)


class VisionTransform:
    """Turn uint8 images (B, C, H, W) into normalized float32 ones, augmented if a generator is given.

    `mean`, `std`: float32 (C,), as `channel_stats` gives them. `augmentation`: "none"; "basic", a random crop of
    the image padded by an eighth of its side, and a mirror in half of the samples; "strong", besides these
    brightness, contrast and saturation jitter, and gray in a fifth of the samples. Each sample draws for
    itself. One channel has no saturation, so there those two do nothing.
    """

    def __init__(self, mean: Tensor, std: Tensor, augmentation: str) -> None:
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation: got {augmentation!r}; expected one of {', '.join(AUGMENTATIONS)}")
        self.mean, self.std, self.augmentation = mean.view(-1, 1, 1), std.view(-1, 1, 1), augmentation

    def __call__(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W) on the images' device; without a generator nothing is random."""
        if generator is not None and self.augmentation != "none":
            images = self._moved(images, generator)
        scaled = images.float().div_(255)
        if generator is not None and self.augmentation == "strong":
            scaled = self._colored(scaled, generator)
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        return scaled.sub_(self.mean).div_(self.std)

    @staticmethod
    def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
        H, W = images.shape[2:]
        # Whole numbers are drawn as such: a fraction times their count would, once in millions, round up to it.
        down, right, flip = (
            torch.randint(count, (len(images),), generator=generator, device=generator.device).to(images.device)
            for count in (2 * (H // PAD_SHARE) + 1, 2 * (W // PAD_SHARE) + 1, 2)
        )
        return crop_flip(images, down, right, flip.bool())

    @staticmethod
    def _colored(images: Tensor, generator: torch.Generator) -> Tensor:
        """Jitter and gray float32 images in [0, 1], in place; they stay in [0, 1]."""
        drawn = torch.rand(4, len(images), 1, 1, 1, generator=generator, device=generator.device).to(images.device)
        brightness, contrast, saturation = 1 + JITTER * (2 * drawn[:3] - 1)
        images.mul_(brightness).clamp_(max=1)
        middle = _gray(images).mean((1, 2, 3), keepdim=True)
        images.sub_(middle).mul_(contrast).add_(middle).clamp_(0, 1)
        if images.shape[1] == 1:
            return images
        # Gray is saturation 0, so one blend does both.
        saturation = torch.where(drawn[3] < GREY, torch.zeros_like(saturation), saturation)
        gray = _gray(images)
        return images.sub_(gray).mul_(saturation).add_(gray).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Return the luma of RGB images, the mean of any other number of channels, (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
