"""Augmentation is per sample, a function of the generator alone, and equal to its slow twin. No GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data import VISION
from data.dataset import Split
from data.errors import DataError
from data.vision.augment import AUGMENTATIONS, VisionTransform, channel_stats, crop_flip, default_augmentation


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transform(kind: str, channels: int = 3) -> VisionTransform:
    """A transform that does not normalize, so that what comes out is in [0, 1]."""
    return VisionTransform(torch.zeros(channels), torch.ones(channels), kind)


def crop_flip_reference(images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """The twin: one image at a time, by slicing."""
    tall, wide = images.shape[2] // 8, images.shape[3] // 8
    out = []
    for image, top, left, mirrored in zip(images, down.tolist(), right.tolist(), flip.tolist(), strict=True):
        window = F.pad(image, (wide, wide, tall, tall))[:, top : top + image.shape[1], left : left + image.shape[2]]
        out.append(window.flip(-1) if mirrored else window)
    return torch.stack(out)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 34), st.integers(1, 34)),
    seed=st.integers(0, 1000),
)
def test_crop_and_flip_equal_the_slow_twin(size: tuple[int, int, int, int], seed: int) -> None:
    images, draw = noise(*size), seeded(seed)
    down, right = (torch.randint(2 * (side // 8) + 1, size[:1], generator=draw) for side in size[2:])
    flip = torch.rand(size[0], generator=draw) < 0.5
    assert torch.equal(crop_flip(images, down, right, flip), crop_flip_reference(images, down, right, flip))


def color_reference(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """The twin of the color jitter for one RGB image in [0, 1]."""

    def gray(image: Tensor) -> Tensor:
        return (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None]

    image = (image * brightness).clamp(0, 1)
    mean = gray(image).mean()
    image = (mean + (image - mean) * contrast).clamp(0, 1)
    return (gray(image) + (image - gray(image)) * saturation).clamp(0, 1)


def test_colors_equal_the_slow_twin() -> None:
    images = noise(64, 3, 8, 8)
    draw = seeded(3)
    for sides in (3, 3, 2):  # the crop and the mirror draw first: from 8 pixels, one to each side
        torch.randint(sides, (64,), generator=draw)
    drawn = torch.rand(4, 64, generator=draw)
    moved = transform("basic")(images, seeded(3))
    expected = [
        color_reference(image, b, c, 0.0 if g < 0.2 else s)
        for image, b, c, s, g in zip(moved, *(0.6 + 0.8 * drawn[:3]), drawn[3], strict=True)
    ]
    torch.testing.assert_close(transform("strong")(images, seeded(3)), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["basic", "strong"])
def test_each_sample_draws_for_itself(kind: str) -> None:
    image = noise(1, 3, 32, 32)
    out = transform(kind)(image.expand(64, -1, -1, -1), seeded(1))
    assert len(torch.unique(out.flatten(1), dim=0)) > 48


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_is_a_function_of_its_generator(kind: str) -> None:
    images = noise(8, 3, 16, 16)
    before, state = images.clone(), torch.get_rng_state()
    one, two, other = (transform(kind)(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert torch.equal(one, other) == (kind == "none")
    assert torch.equal(torch.get_rng_state(), state), "the process-wide generator was used"
    assert torch.equal(images, before), "the stored images were changed"


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_without_a_generator_images_are_only_normalized(kind: str) -> None:
    images = noise(4, 3, 16, 16)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    out = VisionTransform(mean, std, kind)(images, None)
    expected = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_strong_takes_any_number_of_channels_and_stays_in_range(channels: int) -> None:
    images = noise(32, channels, 28, 28)
    out = transform("strong", channels)(images, seeded(0))
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, transform("basic", channels)(images, seeded(0)))


def test_about_half_are_mirrored_and_a_fifth_gray() -> None:
    image = torch.zeros(1, 3, 7, 7, dtype=torch.uint8)  # too small to be moved
    image[:, 0, :, :3] = 200
    out = transform("strong")(image.expand(2000, -1, -1, -1), seeded(5))
    mirrored = (out[:, 0, 0, 6] > out[:, 0, 0, 0]).float().mean()
    gray = (out.amax(1) - out.amin(1) < 1e-6).all(-1).all(-1).float().mean()
    assert 0.45 < mirrored < 0.55
    assert 0.16 < gray < 0.24


def test_channel_stats_see_only_their_split() -> None:
    images = noise(50, 3, 4, 4)
    images[25:] = 255
    mean, std = channel_stats(Split(images, torch.zeros(50, dtype=torch.long), torch.arange(25)))
    pixels = images[:25].transpose(0, 1).flatten(1).double() / 255
    torch.testing.assert_close(mean, pixels.mean(1).float())
    torch.testing.assert_close(std, pixels.std(1, correction=0).float())


def test_channel_stats_of_a_constant_channel_do_not_divide_by_zero() -> None:
    split = Split(torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), torch.arange(4))
    out = VisionTransform(*channel_stats(split), "none")(split.inputs, None)  # type: ignore[arg-type]
    torch.testing.assert_close(out, torch.zeros_like(out), atol=1e-4, rtol=0)


def test_channel_stats_refuse_text() -> None:
    tokens = (torch.zeros(2, 3, dtype=torch.int32), torch.ones(2, dtype=torch.long))
    with pytest.raises(DataError, match="uint8 images"):
        channel_stats(Split(tokens, torch.zeros(2, dtype=torch.long), torch.arange(2)))


def test_constants_are_built_once_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy of one to a GPU would wait for it; "meta" stands in for the GPU."""
    moved: list[object] = []
    real = Tensor.to

    def to(tensor: Tensor, *target: object, **options: object) -> Tensor:
        moved.append(target)
        return real(tensor, *target, **options)  # type: ignore[call-overload,no-any-return]

    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("a constant is built from Python numbers at every batch")

    strong, images = transform("strong"), noise(4, 3, 16, 16)
    monkeypatch.setattr(Tensor, "new_tensor", refuse)
    monkeypatch.setattr(torch, "tensor", refuse)
    strong(images, seeded(0))
    monkeypatch.setattr(Tensor, "to", to)
    for _ in range(3):
        strong(images.to("meta"), None)
    assert moved == [("meta",), *[(torch.device("meta"),)] * 3, ("meta",), ("meta",)]


def test_every_data_set_has_a_default_and_others_are_refused() -> None:
    chosen = {name: default_augmentation(name) for name in VISION}
    assert set(chosen.values()) <= set(AUGMENTATIONS)
    assert (chosen["digits"], chosen["fashionMNIST"], chosen["cifar10"]) == ("none", "basic", "strong")
    with pytest.raises(ValueError, match="'auto'; expected one of none, basic, strong"):
        transform("auto")
