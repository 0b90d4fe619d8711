"""Each kind of picture file as 8-bit RGB, and what is told of it. No GPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.vision.pictures import DARK, DEPTH, FRAMES, PRINTED, TRANSPARENT, TURNED, is_picture, read_picture

RAMP = np.tile(np.arange(16, dtype=np.uint8) * 17, (16, 1))  # 0..255 from left to right


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    return read_picture(path, 16)


def gray(path: Path) -> np.ndarray:
    pixels, _ = read(path)
    assert (pixels == pixels[:1]).all(), "a gray picture has become colored"
    return pixels[0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / name)
    assert np.array_equal(gray(tmp_path / name), RAMP)
    assert read(tmp_path / name)[1] == [DEPTH]


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_16_bit_picture_of_fewer_bits_is_told_of(tmp_path: Path, bits: int) -> None:
    Image.fromarray(RAMP.astype(np.uint16) << (bits - 8)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[1] == [DEPTH, DARK]


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_floating_point_pictures_have_two_known_scales(tmp_path: Path, scale: float) -> None:
    Image.fromarray(RAMP.astype(np.float32) * np.float32(scale)).save(tmp_path / "a.tif")
    assert np.abs(gray(tmp_path / "a.tif").astype(int) - RAMP).max() <= 1
    assert read(tmp_path / "a.tif")[1] == [DEPTH]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(RAMP.astype(np.float32) - 1, id="below black"),
        pytest.param(RAMP.astype(np.float32) * 100, id="above white"),
        pytest.param(np.full((4, 4), np.nan, np.float32), id="nan"),
        pytest.param(RAMP.astype(np.int32) * 70000, id="32 bits"),
    ],
)
def test_a_picture_without_a_known_scale_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match=r"a\.tif: a picture of mode [IF] with values from .* save it with 8 or 16 bits"
    ):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_shown_on_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (16, 16), (10, 20, 30, 0) if mode == "RGBA" else (10, 0))
    picture.paste((40, 40, 40, 255)[-len(mode) :] if mode == "RGBA" else (40, 255), (0, 0, 8, 16))
    picture.save(tmp_path / "a.png")
    pixels, facts = read(tmp_path / "a.png")
    assert (pixels[:, :, :8] == 40).all()
    assert (pixels[:, :, 8:] == 255).all()
    assert facts == [TRANSPARENT]


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (10, 20, 30, 255)).save(tmp_path / "a.png")
    pixels, facts = read(tmp_path / "a.png")
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert facts == []


def test_palettes_keep_their_colors_and_their_transparency(tmp_path: Path) -> None:
    colors = Image.new("P", (16, 16), 1)
    colors.putpalette([0, 0, 0, 200, 100, 50])
    colors.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0][:, 0, 0].tolist() == [200, 100, 50]
    colors.save(tmp_path / "b.png", transparency=1)
    pixels, facts = read(tmp_path / "b.png")
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert facts == [TRANSPARENT]


def test_one_bit_is_black_and_white_and_cmyk_is_told_of(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    assert set(np.unique(gray(tmp_path / "a.png"))) == {0, 255}
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    pixels, facts = read(tmp_path / "a.tif")
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert facts == [PRINTED]


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn it to the right to see it upright"
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(gray(tmp_path / "a.png"), RAMP)
    assert read(tmp_path / "a.png")[1] == [TURNED]


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("L", (16, 16), value) for value in (50, 200))
    for name in ("a.gif", "a.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        assert (gray(tmp_path / name) == 50).all()
        assert read(tmp_path / name)[1] == [FRAMES]


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.bmp", "a.BMP", "a.webp", "a.gif", "a.tif", "a.tiff", "a.ppm"])
def test_the_usual_endings_are_pictures_in_any_case(tmp_path: Path, name: str) -> None:
    assert is_picture(name)
    Image.new("RGB", (20, 12), (200, 200, 200)).save(tmp_path / name)
    pixels, facts = read(tmp_path / name)
    assert pixels.shape == (3, 16, 16)
    assert np.abs(pixels.astype(int) - 200).max() <= 2
    assert facts == []


@pytest.mark.parametrize("name", ["a.txt", "a.npy", "a", "a.eps", "a.pdf", "a.csv", "jpeg"])
def test_other_endings_are_not(name: str) -> None:
    assert not is_picture(name)


def test_a_file_that_is_no_picture_is_named_in_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    content = whole.read_bytes()
    Image.new("LAB", (16, 16)).save(tmp_path / "lab.tif")
    rng = np.random.default_rng(1)
    for number in range(40):  # damage of all kinds
        spoiled = bytearray(content[: rng.integers(8, len(content))])
        spoiled[int(rng.integers(8, len(spoiled)))] ^= 0xFF
        (tmp_path / f"{number}.png").write_bytes(spoiled)
    for text in ("", "404: Not Found", "<!DOCTYPE html>\n<html>quota exceeded</html>", "%!PS-Adobe-3.0 EPSF-3.0\n"):
        (tmp_path / f"text{len(text)}.jpeg").write_text(text)
    (tmp_path / "folder.jpg").mkdir()
    refused = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(tmp_path.iterdir()):
            try:
                read(path)
            except DataError as error:
                refused.append((path, str(error)))
    assert len(refused) >= 40
    assert all(message.startswith(f"{path}: ") and "\n" not in message for path, message in refused)
    with pytest.raises(DataError, match=r"lab\.tif: a picture of mode LAB"):
        read(tmp_path / "lab.tif")
    with pytest.raises(DataError, match=r"text14\.jpeg: damaged image \(not a picture of a known format\)"):
        read(tmp_path / "text14.jpeg")
    with pytest.raises(DataError, match=r"folder\.jpg: cannot be read \(Is a directory\)"):
        read(tmp_path / "folder.jpg")
