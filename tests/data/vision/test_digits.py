"""The digits of scikit-learn. No network, no GPU."""

from __future__ import annotations

from pathlib import Path

import torch

from data import Dataset, load_vision


def load(name: str, root: Path, **options: int | None) -> Dataset:
    return load_vision(name, root=root, val_fraction=0.25, seed=0, **options)


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
