"""Pictures outside a data set become what its own images are. CPU, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from data import DataError, load_vision
from data.vision.digits import load
from data.vision.unseen import Pictures


def pictures(channels: int, stored: tuple[int, int], size: int) -> Pictures:
    return Pictures(channels=channels, stored_size=stored, size=size, mean=(0.5,) * channels, std=(0.25,) * channels)


def test_files_of_a_data_set_s_images_are_these_images(tmp_path: Path) -> None:
    data = load_vision("digits", root=tmp_path, val_fraction=0.1, seed=0)
    stored = load(tmp_path, 8).test[0][:9]
    files = [tmp_path / f"{number}.png" for number in range(9)]
    for file, image in zip(files, stored, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    assert data.stored_size == (8, 8)
    inputs = data.test.inputs
    assert isinstance(inputs, torch.Tensor)
    assert torch.equal(pictures(1, data.stored_size, inputs.shape[2]).read(files), inputs[:9])


def test_files_that_a_data_set_is_made_of_are_read_as_it_reads_them(datasets: Path) -> None:
    data = load_vision("tinyImageNet", root=datasets, val_fraction=0.1, seed=0, image_size=16)
    inputs = data.test.inputs
    assert isinstance(inputs, torch.Tensor)
    assert data.stored_size == (16, 16)
    files = sorted((datasets / "tiny-imagenet-200" / "val").rglob("*.JPEG"))
    read = pictures(3, data.stored_size, 16).read(files)
    assert sorted(image.numpy().tobytes() for image in read) == sorted(image.numpy().tobytes() for image in inputs)


def test_a_picture_of_another_size_and_color_fits(tmp_path: Path) -> None:
    color, tall = tmp_path / "color.png", tmp_path / "tall.png"
    Image.new("RGB", (40, 30), (255, 0, 0)).save(color)
    Image.new("L", (5, 20), 7).save(tall)
    read = pictures(1, (8, 12), 16).read([color, tall])
    assert read.shape == (2, 1, 16, 16)
    assert read[0].unique().tolist() == [76]  # 0.299 * 255
    assert read[1].unique().tolist() == [7]
    assert pictures(3, (8, 12), 16).transform()(read.expand(-1, 3, -1, -1), None).shape == (2, 3, 16, 16)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.png: damaged image .*; replace it, or leave it out"):
        pictures(3, (8, 8), 16).read([tmp_path / "bad.png"])
