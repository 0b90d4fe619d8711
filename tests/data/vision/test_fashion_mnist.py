"""fashionMNIST in either place, zipped or plain, good and bad. No network, no GPU."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data import DataError, Dataset, load_vision
from data import download as download_module
from data.vision import fashion_mnist


def load(name: str, root: Path, **options: int | None) -> Dataset:
    return load_vision(name, root=root, val_fraction=0.25, seed=0, **options)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def fashion(folder: Path, *, rows: int = 10, zipped: bool = True) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = rng().integers(0, 256, (rows, 28, 28), np.uint8)
    for stem in STEMS:
        content = idx(images if "images" in stem else np.arange(rows, dtype=np.uint8) % 10)
        path = folder / (f"{stem}.gz" if zipped else stem)
        path.write_bytes(gzip.compress(content, 1) if zipped else content)
    return images


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_is_found_in_either_place_plain_or_zipped(tmp_path: Path, folder: str, zipped: bool) -> None:
    expected = fashion(tmp_path / folder, zipped=zipped)
    loaded = load("fashionmnist", tmp_path, image_size=28)
    assert loaded.name == "fashionMNIST"
    assert torch.equal(loaded.test.inputs, torch.from_numpy(expected)[:, None])  # type: ignore[arg-type]
    assert loaded.test.labels.tolist() == list(range(10))
    assert load("fashionMNIST", tmp_path).test.inputs.shape == (10, 1, 32, 32)  # type: ignore[union-attr]


def test_only_the_missing_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    asked: list[str] = []

    def download(name: str, file: download_module.RemoteFile, path: Path) -> None:
        asked.append(file.url)
        raise DataError(f"{name}: no network in a test")

    monkeypatch.setattr(download_module, "_download", download)
    with pytest.raises(DataError, match="no network"):
        load("fashionMNIST", tmp_path)
    assert len(asked) == 1
    assert asked[0].endswith("t10k-labels-idx1-ubyte.gz")


IMAGES = idx(np.zeros((10, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file"),
        (b"<html>quota exceeded</html>", "is not an idx file"),
        (b"404: Not Found", "is not an idx file"),
        (idx(np.zeros(10, np.uint8)), r"its content is uint8 \(10,\); expected uint8 \(n, height, width\)"),
        (b"\0\0\x0d\3" + idx(np.zeros((1, 2, 3), np.float32))[4:], r"its content is float32 \(1, 2, 3\)"),
        (b"\0\0\x08\3" + b"\xff" * 12, "holds fewer than the"),
        (IMAGES[:-1], "holds fewer than the 7840 bytes"),
        (IMAGES + b"x", "holds more than the 7840 bytes"),
        (gzip.compress(IMAGES, mtime=0)[:-20], "cannot be read"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
    ],
)
def test_a_file_that_is_not_idx_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    fashion(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: {message}"):
        load("fashionMNIST", tmp_path)


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    fashion(tmp_path)
    (tmp_path / STEMS[1]).write_bytes(idx(np.zeros(9, np.uint8)))
    (tmp_path / f"{STEMS[1]}.gz").unlink()
    with pytest.raises(DataError, match="10 images but 9 labels"):
        load("fashionMNIST", tmp_path)
    for stem in STEMS[:2]:
        shape = (0, 28, 28) if "images" in stem else (0,)
        (tmp_path / f"{stem}.gz").write_bytes(gzip.compress(idx(np.zeros(shape, np.uint8))))
        (tmp_path / stem).unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"fashionMNIST train set .*holds no images"):
        load("fashionMNIST", tmp_path)


@pytest.mark.parametrize(
    "where", ["FashionMNIST", "FashionMNIST/FashionMNIST/raw", "FashionMNIST/raw/raw", "fashion-mnist"]
)
def test_an_unusual_place_is_found_with_a_note(tmp_path: Path, where: str) -> None:
    fashion(tmp_path / where)
    usual = tmp_path / "FashionMNIST/raw"
    assert load("fashionMNIST", tmp_path).notes[:-1] == [  # the last one: of two classes all images are for validation
        f"fashionMNIST: read from {tmp_path / where}; its usual place is {usual}"
    ]


def test_the_root_may_be_its_own_folder_but_not_that_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets have files of the same names."""
    fashion(tmp_path / "FashionMNIST/raw")
    fashion(tmp_path / "MNIST/raw")
    assert "read from" in load("fashionMNIST", tmp_path / "FashionMNIST").notes[0]
    monkeypatch.setattr("data.vision.fashion_mnist.fetch", lambda *_: pytest.fail("looks for it elsewhere"))
    with pytest.raises(pytest.fail.Exception, match="elsewhere"):
        load("fashionMNIST", tmp_path / "MNIST")


@pytest.mark.parametrize("name", ["FashionMNIST.zip", "fashion-mnist.tar.gz", "fashion-mnist-master.zip"])
def test_an_archive_of_the_four_files_is_unpacked(tmp_path: Path, name: str) -> None:
    fashion(tmp_path / "pack/fashion-mnist-master/data/fashion")
    form = "zip" if name.endswith("zip") else "gztar"
    shutil.move(shutil.make_archive(str(tmp_path / "x"), form, tmp_path / "pack"), tmp_path / name)
    shutil.rmtree(tmp_path / "pack")
    assert len(load("fashionMNIST", tmp_path).test) == 10


def test_whole_numbers_of_other_types_and_a_channel_are_recognized(tmp_path: Path) -> None:
    expected = fashion(tmp_path)
    wide = idx(expected[..., None].astype(">i4"))
    (tmp_path / f"{STEMS[0]}.gz").write_bytes(b"\0\0\x0c\4" + wide[4:])
    labels = idx(np.arange(10, dtype=">i2"))
    (tmp_path / f"{STEMS[1]}.gz").write_bytes(b"\0\0\x0b\1" + labels[4:])
    loaded = load("fashionMNIST", tmp_path, image_size=28)
    assert torch.equal(loaded.train.inputs, torch.from_numpy(expected)[:, None])  # type: ignore[arg-type]
    assert loaded.train.labels.tolist() == list(range(10))


def test_clutter_is_counted(tmp_path: Path) -> None:
    fashion(tmp_path / "FashionMNIST/raw")
    (tmp_path / "FashionMNIST/raw/.DS_Store").write_text("x")
    assert load("fashionMNIST", tmp_path).notes[:-1] == [
        "fashionMNIST: 1 file that an operating system or editor left (.DS_Store) not read"
    ]


@pytest.mark.parametrize(
    ("rows", "message"), [(1, "1 training samples are too few"), (2, "1 of 2 training images is left")]
)
def test_too_few_images_to_train_on_are_one_line(tmp_path: Path, rows: int, message: str) -> None:
    fashion(tmp_path, rows=rows)
    with pytest.raises(DataError, match=message) as caught:
        load("fashionMNIST", tmp_path)
    assert "\n" not in str(caught.value)


def test_files_of_another_set_with_the_same_names_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion(tmp_path, rows=20)
    first = list(range(10))
    for labels, told in ((first, False), (first[::-1], True)):
        monkeypatch.setattr(fashion_mnist, "_OFFICIAL", ((20, labels), (99, labels)))  # the test file is a part
        notes = [note for note in load("fashionMNIST", tmp_path).notes if "MNIST or KMNIST" in note]
        assert [str(tmp_path / STEMS[1]) in note for note in notes] == [True] * told
