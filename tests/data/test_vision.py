"""The vision readers on small files in the official formats, right and wrong. No network, no GPU."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import DataError, Dataset, canonical, load_vision, tiny_imagenet
from data import download as download_module
from data.cifar import load_restricted
from data.download import RESOURCES

COLOURS = {"n01": (250, 10, 10), "n02": (10, 250, 10), "n03": (10, 10, 250)}
GREY = (120, 120, 120)


def load(name: str, root: Path, **options: int | None) -> Dataset:
    return load_vision(name, root=root, val_fraction=0.25, seed=0, **options)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- tinyImageNet ---------------------------------------------------------------------------------------------


def paint(path: Path, colour: tuple[int, int, int], size: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path, "JPEG")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes of four images, a grey one among them; val in one folder, its names in no order of class."""
    folder = tmp_path / "tiny-imagenet-200"
    for wnid, colour in COLOURS.items():
        for number in range(4):
            paint(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", colour)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    Image.new("L", (64, 64), GREY[0]).save(folder / "train/n02/images/n02_3.JPEG", "JPEG")
    lines = []
    for number, wnid in enumerate(["n03", "n01", "n02", "n01"]):
        paint(folder / "val/images" / f"val_{number}.JPEG", COLOURS[wnid])
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val/val_annotations.txt").write_text("".join(reversed(lines)))
    (folder / "wnids.txt").write_text("n02\nn01\nn03\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tEgyptian cat\nn99\tentity\n")
    return tmp_path


def near(image: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return bool(((image.float().mean((1, 2)) - torch.tensor(colour).float()).abs() < 4).all())


def test_tiny_imagenet_labels_are_those_of_the_annotations(tiny: Path) -> None:
    loaded = load("TINYIMAGENET", tiny)
    assert loaded.name == "tinyImageNet"
    assert loaded.classes == ["Egyptian cat", "goldfish", "n03"]
    images = loaded.test.inputs
    assert isinstance(images, torch.Tensor)
    assert images.dtype == torch.uint8
    assert images.shape == (4, 3, 32, 32)
    wnids = ["n02", "n01", "n03"]
    assert sorted(loaded.test.labels.tolist()) == [0, 1, 1, 2]
    for image, label in zip(images, loaded.test.labels.tolist(), strict=True):
        assert near(image, COLOURS[wnids[label]])


def test_tiny_imagenet_train_images_go_with_their_folder_and_grey_becomes_rgb(tiny: Path) -> None:
    loaded = load("tinyImageNet", tiny)
    images, labels = loaded.train.rows(torch.arange(len(loaded.train)))
    held, held_labels = loaded.val.rows(torch.arange(len(loaded.val)))
    assert len(labels) == 9
    assert len(held_labels) == 3
    greys = 0
    for image, label in zip(torch.cat([images, held]), [*labels.tolist(), *held_labels.tolist()], strict=True):  # type: ignore[list-item]
        if near(image, GREY):
            greys += 1
            assert label == 0
        else:
            assert near(image, COLOURS[["n02", "n01", "n03"][label]])
    assert greys == 1


def test_tiny_imagenet_is_decoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("tinyImageNet", tiny)
    assert first.notes == []
    assert not list((tiny / ".cache").glob("*.part"))
    monkeypatch.setattr(tiny_imagenet, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load("tinyImageNet", tiny)
    assert torch.equal(first.train.inputs, second.train.inputs)  # type: ignore[arg-type]
    assert torch.equal(first.test.inputs, second.test.inputs)  # type: ignore[arg-type]


def test_tiny_imagenet_decodes_again_when_a_file_or_the_size_changes(tiny: Path) -> None:
    before = load("tinyImageNet", tiny).test.inputs
    image = tiny / "tiny-imagenet-200/val/images/val_0.JPEG"
    paint(image, (250, 250, 250))
    os.utime(image, ns=(0, 0))
    after = load("tinyImageNet", tiny).test.inputs
    assert not torch.equal(before, after)  # type: ignore[arg-type]
    assert load("tinyImageNet", tiny, image_size=64).test.inputs.shape == (4, 3, 64, 64)  # type: ignore[union-attr]


def test_a_damaged_cache_is_written_anew(tiny: Path) -> None:
    before = load("tinyImageNet", tiny).test.inputs.clone()  # type: ignore[union-attr]
    for file in (tiny / ".cache").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:200])
    assert torch.equal(load("tinyImageNet", tiny).test.inputs, before)  # type: ignore[arg-type]


def test_the_cache_is_never_written_through_the_map(tiny: Path) -> None:
    inputs = load("tinyImageNet", tiny).test.inputs
    assert isinstance(inputs, torch.Tensor)
    inputs.zero_()
    assert int(load("tinyImageNet", tiny).test.inputs.max()) > 0  # type: ignore[union-attr]


def test_where_no_cache_can_be_written_images_are_held_in_memory_and_it_is_said(tiny: Path) -> None:
    (tiny / ".cache").write_text("a file where the folder should be")
    loaded = load("tinyImageNet", tiny)
    assert len(loaded.train.labels) == 12
    assert len(loaded.notes) == 2
    assert "decoded anew in every run" in loaded.notes[0]


@pytest.mark.parametrize("inner", ["images", "."])
@pytest.mark.parametrize("keeps_annotations", [False, True])
def test_tiny_imagenet_takes_a_val_set_sorted_into_class_folders(
    tiny: Path, inner: str, keeps_annotations: bool
) -> None:
    val = tiny / "tiny-imagenet-200/val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (val / wnid / inner).mkdir(parents=True, exist_ok=True)
        (val / "images" / name).rename(val / wnid / inner / name)
    (val / "images").rmdir()
    if not keeps_annotations:
        (val / "val_annotations.txt").unlink()
    loaded = load("tinyImageNet", tiny)
    assert loaded.test.labels.tolist() == [0, 1, 1, 2]
    assert near(loaded.test.inputs[3], COLOURS["n03"])


def test_a_class_that_wnids_does_not_list_is_left_out_and_it_is_said(tiny: Path) -> None:
    folder = tiny / "tiny-imagenet-200"
    (folder / "wnids.txt").write_text("n01\nn02\n")
    lines = (folder / "val/val_annotations.txt").read_text().splitlines(keepends=True)
    (folder / "val/val_annotations.txt").write_text("".join(line for line in lines if "n03" not in line))
    (folder / "val/images/val_0.JPEG").unlink()
    loaded = load("tinyImageNet", tiny)
    assert len(loaded.classes) == 2
    assert len(loaded.train.labels) == 8
    assert "1 folders" in loaded.notes[0]


def truncate(folder: Path) -> None:
    image = folder / "train/n01/images/n01_2.JPEG"
    image.write_bytes(image.read_bytes()[:300])


def no_image(folder: Path) -> None:
    (folder / "train/n01/images/n01_2.JPEG").write_text("<html>404</html>")


def empty_class(folder: Path) -> None:
    for image in (folder / "train/n03/images").iterdir():
        image.unlink()


def unknown_class(folder: Path) -> None:
    with (folder / "val/val_annotations.txt").open("a") as file:
        file.write("val_9.JPEG\tn77\t0\t0\t1\t1\n")


def missing_image(folder: Path) -> None:
    (folder / "val/images/val_3.JPEG").unlink()


def missing_annotation(folder: Path) -> None:
    paint(folder / "val/images/val_8.JPEG", GREY)


def double_annotation(folder: Path) -> None:
    with (folder / "val/val_annotations.txt").open("a") as file:
        file.write("val_2.JPEG\tn02\n")


def no_annotations(folder: Path) -> None:
    (folder / "val/val_annotations.txt").unlink()


def no_wnids(folder: Path) -> None:
    (folder / "wnids.txt").unlink()


def empty_wnids(folder: Path) -> None:
    (folder / "wnids.txt").write_text("\n\n")


def double_wnid(folder: Path) -> None:
    (folder / "wnids.txt").write_text("n01\nn02\nn03\nn02\n")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncate, r"n01_2\.JPEG: damaged image"),
        (no_image, r"n01_2\.JPEG: damaged image"),
        (empty_class, r"train/n03: holds no images"),
        (unknown_class, r"val_annotations\.txt, line 5: wnids\.txt lists no class 'n77'"),
        (missing_image, r"val_annotations\.txt, line 1: there is no image .*val_3\.JPEG"),
        (missing_annotation, r"val_8\.JPEG: val_annotations\.txt has no line for it"),
        (double_annotation, r"line 5: val_2\.JPEG is annotated twice"),
        (no_annotations, r"val: has neither val_annotations\.txt"),
        (no_wnids, r"wnids\.txt: cannot be read"),
        (empty_wnids, r"wnids\.txt: lists no class"),
        (double_wnid, r"wnids\.txt, line 4: n02 is listed twice"),
    ],
)
def test_faults_of_tiny_imagenet_are_named(tiny: Path, spoil: Callable[[Path], None], told: str) -> None:
    spoil(tiny / "tiny-imagenet-200")
    with pytest.raises(DataError, match=told) as caught:
        load("tinyImageNet", tiny)
    assert "\n" not in str(caught.value)
    assert not list((tiny / ".cache").glob("*.part"))


# --- CIFAR ----------------------------------------------------------------------------------------------------


def cifar10(root: Path, rows: int = 6, protocol: int = 2) -> np.ndarray:
    """Write two of the five training files and the test file; return the test images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    draw = rng()
    for name in ("data_batch_1", "data_batch_4", "test_batch"):
        images = draw.integers(0, 256, (rows, 3072), np.uint8)
        content = {b"data": images, b"labels": [i % 10 for i in range(rows)], b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    names = {b"label_names": [f"kind {i}".encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol))
    return images.reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cifar10_is_read_from_pickles_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    expected = cifar10(tmp_path, protocol=protocol)
    loaded = load("CIFAR10", tmp_path)
    assert loaded.classes == [f"kind {i}" for i in range(10)]
    assert torch.equal(loaded.test.inputs, torch.from_numpy(expected))  # type: ignore[arg-type]
    assert loaded.test.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded.train.inputs.shape == (12, 3, 32, 32)  # type: ignore[union-attr]


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    # What cPickle of Python 2 wrote for {"data": numpy.array([[1, 2, 3], [4, 5, 6]], "uint8"), "labels": [7]}.
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        + dtype
        + b"\x89U\x06\x01\x02\x03\x04\x05\x06tb"
    )
    (tmp_path / "old").write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x07au.")
    content = load_restricted(tmp_path / "old")
    assert content["data"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert content["data"].dtype == np.uint8
    assert content["labels"] == [7]


def test_arrays_keep_their_order_type_and_bytes(tmp_path: Path) -> None:
    arrays = {
        "wide": np.arange(6, dtype="<i8").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        "foreign": np.arange(3, dtype=">i4"),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "file").write_bytes(pickle.dumps(arrays, protocol))
        for name, value in load_restricted(tmp_path / "file").items():
            assert np.array_equal(value, arrays[name])


class Hostile:
    """Runs a command when it is unpickled by an ordinary unpickler."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    cifar10(tmp_path)
    target = tmp_path / "cifar-10-batches-py/data_batch_4"
    mark = tmp_path / "was run"
    for call, arguments in (
        (os.mkdir, (str(mark),)),
        (eval, (f"open({str(mark)!r}, 'w')",)),
        (np.load, ("x.npy",)),
        (np.ndarray, ((2,), "O", b"\x00" * 16)),
        (__import__, ("antigravity",)),
    ):
        target.write_bytes(pickle.dumps({b"data": Hostile(call, *arguments), b"labels": [1]}))
        with pytest.raises(DataError, match=r"data_batch_4: .*fetch it again"):
            load("cifar10", tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.zeros(3072)}),
        pickle.dumps({"data": np.array([None, "x"], dtype=object)}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1]})[:-300],
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1.5]}),
        pickle.dumps({"data": np.zeros((1, 3000), np.uint8), "labels": [1]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}),
        pickle.dumps({"labels": [1]}),
        b"\x80\x02}(U\x04datacnumpy\nndarray\n)Ru.",
    ],
)
def test_a_pickle_that_does_not_hold_images_is_named(tmp_path: Path, content: bytes) -> None:
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch: .*fetch it again"):
        load("cifar10", tmp_path)


def test_a_missing_cifar_file_and_a_label_out_of_range_are_named(tmp_path: Path) -> None:
    cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    with pytest.raises(DataError, match=r"cifar10 train set .*outside 0\.\.1"):
        load("cifar10", tmp_path)
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch: is missing"):
        load("cifar10", tmp_path)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        images = rng().integers(0, 256, (8, 3072), np.uint8)
        content = {"data": images, "fine_labels": list(range(90, 98)), "coarse_labels": [0] * 8}
        (folder / name).write_bytes(pickle.dumps(content))
    loaded = load("cifar100", tmp_path)
    assert len(loaded.classes) == 100
    assert loaded.test.labels.tolist() == list(range(90, 98))


def test_the_binary_layouts_are_read(tmp_path: Path) -> None:
    images = rng().integers(0, 256, (8, 3072), np.uint8)
    labels = np.arange(8, dtype=np.uint8)[:, None]
    for folder, train, test, columns in (
        ("cifar-10-batches-bin", "data_batch_2.bin", "test_batch.bin", [labels]),
        ("cifar-100-binary", "train.bin", "test.bin", [labels * 0 + 3, labels]),
    ):
        (tmp_path / folder).mkdir()
        for name in (train, test):
            np.hstack([*columns, images]).tofile(tmp_path / folder / name)
    (tmp_path / "cifar-10-batches-bin/batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    ten, hundred = load("cifar10", tmp_path), load("cifar100", tmp_path)
    assert ten.classes == list("abcdefghij")
    for loaded in (ten, hundred):
        assert loaded.test.labels.tolist() == list(range(8))
        assert torch.equal(loaded.test.inputs, torch.from_numpy(images.reshape(-1, 3, 32, 32)))  # type: ignore[arg-type]
    (tmp_path / "cifar-100-binary/test.bin").write_bytes(bytes(3000))
    with pytest.raises(DataError, match=r"test\.bin: is not rows of 3074 bytes"):
        load("cifar100", tmp_path)


# --- fashionMNIST ---------------------------------------------------------------------------------------------

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
    ("content", "told"),
    [
        (b"", "is not an idx file"),
        (b"<html>quota exceeded</html>", "is not an idx file"),
        (idx(np.zeros(10, np.uint8)), "is not an idx file of bytes in 3 dimensions"),
        (IMAGES[:-1], "holds fewer than the 7840 bytes"),
        (IMAGES + b"x", "holds more than the 7840 bytes"),
        (gzip.compress(IMAGES)[:-20], "cannot be read"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
    ],
)
def test_a_file_that_is_not_idx_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    fashion(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: {told}"):
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


# --- digits, and what holds for all ---------------------------------------------------------------------------


def test_digits_need_nothing_and_their_test_set_never_varies(tmp_path: Path) -> None:
    one = load("digits", tmp_path)
    two = load_vision("DIGITS", root=tmp_path, val_fraction=0.1, seed=7, limit_train=100)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(one.test.inputs, torch.Tensor)
    assert one.test.inputs.shape[1:] == (1, 16, 16)
    assert torch.equal(one.test.inputs, two.test.inputs)  # type: ignore[arg-type]
    assert torch.equal(one.test.labels, two.test.labels)
    assert len(two.train) == 100
    counts = one.test.labels.bincount()
    assert len(one.train.labels) + len(one.test.labels) == 1797
    assert 35 <= int(counts.min()) <= int(counts.max()) <= 37  # a fifth of each class
    native = load("digits", tmp_path, image_size=8).train.inputs
    assert isinstance(native, torch.Tensor)
    assert (int(native.min()), int(native.max())) == (0, 255)
    assert len(set(native.flatten().tolist())) == 17


def test_digits_of_train_are_not_in_test(tmp_path: Path) -> None:
    loaded = load("digits", tmp_path, image_size=8)
    train = {bytes(image.numpy().tobytes()) for image in loaded.train.inputs}
    test = {bytes(image.numpy().tobytes()) for image in loaded.test.inputs}
    assert not train & test


def test_a_size_below_one_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image_size: got 0"):
        load("digits", tmp_path, image_size=0)


def test_names_are_told_apart_and_the_nearest_is_named() -> None:
    assert canonical(" TinyImageNet ", "vision") == "tinyImageNet"
    assert canonical("AGNEWS", "text") == "agnews"
    with pytest.raises(DataError, match=r"unknown vision data set 'tinyimagnet': did you mean tinyImageNet\? Known: "):
        canonical("tinyimagnet", "vision")
    with pytest.raises(DataError, match=r"Known: agnews, dbpedia, imdb, docstrings$"):
        canonical("xyz", "text")
    with pytest.raises(DataError, match=r"agnews is not a vision data set: use nlpmain\.py"):
        canonical("agnews", "vision")


def test_every_name_can_be_loaded_or_fetched() -> None:
    embedded = {"digits", "docstrings"}
    assert {*data.VISION, *data.TEXT} - embedded == set(RESOURCES) - {"glove"}
