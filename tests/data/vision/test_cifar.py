"""CIFAR in its official layouts, and pickles that must not be run. No network, no GPU."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data import DataError, Dataset, load_vision
from data.storage.pickles import load_restricted


def load(name: str, root: Path) -> Dataset:
    return load_vision(name, root=root, val_fraction=0.25, seed=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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


def rows_of(root: Path, data: object, labels: object) -> Dataset:
    """Write `data` as the first training file of CIFAR-10, and load it."""
    content = {"data": data, "labels": labels}
    (root / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(content))
    return load("cifar10", root)


def smooth(rows: int = 6) -> np.ndarray:
    """Images (rows, 32, 32, 3) that are smooth, as photographs are, each of other colors."""
    across = np.linspace(0, 1, 32)
    waves = [np.sin(3 * across[:, None] + c + 2 * across[None]) for c in range(3)]
    tint = rng().uniform(20, 100, (rows, 1, 1, 3))
    return (128 + tint * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda images: images, id="n 32 32 3"),
        pytest.param(lambda images: images.transpose(0, 3, 1, 2), id="n 3 32 32"),
        pytest.param(lambda images: images.transpose(0, 3, 1, 2).reshape(-1, 3072), id="n 3072"),
        pytest.param(lambda images: images.transpose(0, 3, 1, 2).reshape(-1, 3072).astype(np.int64), id="int64"),
        pytest.param(np.asfortranarray, id="columns first"),
    ],
)
@pytest.mark.parametrize("tall", [False, True])
def test_images_of_a_certain_form_are_recognized(
    tmp_path: Path, form: Callable[[np.ndarray], np.ndarray], tall: bool
) -> None:
    cifar10(tmp_path)
    images, labels = smooth(), np.arange(6)
    loaded = rows_of(tmp_path, form(images), labels[:, None] if tall else labels)
    assert torch.equal(loaded.train.inputs[:6], torch.from_numpy(images).permute(0, 3, 1, 2))  # type: ignore[index]
    assert loaded.train.labels[:6].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (smooth().reshape(-1, 3072), r"uint8 \(6, 3072\) with the colors of each pixel side by side"),
        (smooth().reshape(-1, 3072).astype(np.int32), r"uint8 \(6, 3072\) with the colors of each pixel side by side"),
        (np.zeros((6, 3072), np.float32), r"float32 \(6, 3072\); expected uint8 \(n, 3072\), "),
        (np.zeros((6, 32, 32, 3)), r"float64 \(6, 32, 32, 3\)"),
        (np.full((6, 3072), 256, np.uint16), r"uint16 \(6, 3072\)"),
        (np.full((6, 3072), -1, np.int8), r"int8 \(6, 3072\)"),
        (np.zeros((3072, 6), np.uint8), r"uint8 \(3072, 6\)"),
        (np.zeros(6 * 3072, np.uint8), r"uint8 \(18432,\)"),
        (np.zeros((32, 32, 3, 6), np.uint8), r"uint8 \(32, 32, 3, 6\)"),
        (np.zeros((6, 32, 32), np.uint8), r"uint8 \(6, 32, 32\)"),
        (np.zeros((6, 64, 64, 3), np.uint8), r"uint8 \(6, 64, 64, 3\)"),
        ([[0] * 3072] * 6, "a list"),
    ],
)
def test_images_of_any_other_form_are_refused_with_their_shape(tmp_path: Path, data: object, shown: str) -> None:
    cifar10(tmp_path)
    with pytest.raises(DataError, match=rf"data_batch_1: 'data' is {shown}") as caught:
        rows_of(tmp_path, data, [0] * 6)
    assert "\n" not in str(caught.value)


def test_labels_must_be_one_whole_number_per_image(tmp_path: Path) -> None:
    cifar10(tmp_path)
    with pytest.raises(DataError, match=r"'labels' has the shape \(6, 10\); expected one number per image"):
        rows_of(tmp_path, smooth(), np.eye(6, 10, dtype=int))


@pytest.mark.parametrize("name", ["data_batch_4", "batches.meta", "test_batch"])
@pytest.mark.parametrize("text", ["", "404: Not Found", "<!DOCTYPE html>\n<html>quota\nexceeded</html>\n"])
def test_the_text_of_a_server_is_no_data(tmp_path: Path, name: str, text: str) -> None:
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: is not a pickle of plain data \(.*\); fetch it again") as caught:
        load("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_not_called_a_bad_pickle(tmp_path: Path) -> None:
    cifar10(tmp_path)
    batch = tmp_path / "cifar-10-batches-py/data_batch_4"
    batch.unlink()
    batch.mkdir()
    with pytest.raises(DataError, match=r"data_batch_4: cannot be read \(Is a directory\)"):
        load("cifar10", tmp_path)


def test_missing_training_files_and_clutter_are_noted(tmp_path: Path) -> None:
    cifar10(tmp_path)
    for name in (".DS_Store", "._data_batch_1"):
        (tmp_path / "cifar-10-batches-py" / name).write_text("x")
    notes = load("cifar10", tmp_path).notes
    assert notes[0].startswith("cifar10: trained without data_batch_2, data_batch_3, data_batch_5: not in ")
    assert notes[1] == ("cifar10: 2 files that an operating system or editor left (.DS_Store, ._data_batch_1) not read")


@pytest.mark.parametrize("name", ["cifar-10-python.zip", "cifar-10-python.tgz", "cifar-10-batches-py.tar"])
def test_an_archive_in_the_root_is_unpacked(tmp_path: Path, name: str) -> None:
    cifar10(tmp_path)
    form = {"zip": "zip", "tgz": "gztar", "tar": "tar"}[name.rpartition(".")[2]]
    shutil.move(shutil.make_archive(str(tmp_path / "any"), form, tmp_path, "cifar-10-batches-py"), tmp_path / name)
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    assert len(load("cifar10", tmp_path).test) == 6
    assert (tmp_path / name).is_file()


def test_the_root_may_be_the_folder_itself_but_not_that_of_the_other_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10(tmp_path)
    folder = (tmp_path / "cifar-10-batches-py").rename(tmp_path / "my cifar")
    assert "read from" in load("cifar10", folder).notes[0]
    monkeypatch.setattr("data.vision.cifar.locate", lambda *_: pytest.fail("looks for it elsewhere"))
    with pytest.raises(pytest.fail.Exception, match="elsewhere"):
        load("cifar100", folder)


def test_a_missing_cifar_file_and_a_label_out_of_range_are_named(tmp_path: Path) -> None:
    cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    with pytest.raises(DataError, match=r"batches\.meta: the number of class names is 2, but there is a class 5"):
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


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_labels_may_be_numbers_of_numpy(tmp_path: Path, protocol: int) -> None:
    cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    content = {"data": np.zeros((3, 3072), np.uint8), "labels": list(np.array([4, 9, 0]))}
    path.write_bytes(pickle.dumps(content, protocol))
    assert load("cifar10", tmp_path).test.labels.tolist() == [4, 9, 0]
