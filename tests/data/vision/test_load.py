"""What holds for every vision data set, and a data set from outside the packages. No network, no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import data
from data import DataError, load_vision
from data.vision.augment import default_augmentation

PLUGIN = """
import torch
from data import DatasetEntry, register_dataset
from data.vision.images import Images


def load(root, image_size):
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 6, 9).contiguous()
    (root / "seen").write_text(str(image_size))
    return Images(["even", "odd"], (images, torch.arange(12) % 2), (images[:4], torch.arange(4) % 2), ["striped: ok"])


register_dataset(DatasetEntry("stripes", "vision", "stripes in 2 classes", load, augmentation="basic", image_size=8))
"""


def load(name: str, root: Path, **options: int | None) -> data.Dataset:
    return load_vision(name, root=root, val_fraction=0.25, seed=0, **options)


def test_a_size_below_one_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image_size: got 0"):
        load("digits", tmp_path, image_size=0)


@pytest.mark.usefixtures("forget_plugins")
def test_a_data_set_is_one_file_outside_the_packages(tmp_path: Path) -> None:
    file = tmp_path / "stripes.py"
    file.write_text(PLUGIN)
    exec(compile(PLUGIN, str(file), "exec"), {"__name__": "stripes"})
    loaded = load("STRIPES", tmp_path)
    assert (loaded.name, loaded.classes, loaded.notes) == ("stripes", ["even", "odd"], ["striped: ok"])
    assert (tmp_path / "seen").read_text() == "8"
    assert isinstance(loaded.train.inputs, torch.Tensor)
    assert loaded.train.inputs.shape == (12, 2, 8, 8)
    assert loaded.train.inputs.dtype == torch.uint8
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (9, 3, 4)
    for split in (loaded.train, loaded.val):
        images, labels = split.rows(torch.arange(len(split)))
        assert torch.equal(images[:, 0, 0, 0].long() % 2, labels)  # type: ignore[call-overload]
    assert default_augmentation("stripes") == "basic"


def good() -> dict[str, Any]:
    labeled = (torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.zeros(6, dtype=torch.long))
    return {"classes": ["a", "b"], "train": labeled, "test": labeled}


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ok: None, r"its load function returned NoneType; expected data\.Images"),
        (
            lambda ok: {"train": (ok["train"][0].float(), ok["train"][1])},
            r"the images are float32 \(6, 1, 4, 4\); expec",
        ),
        (
            lambda ok: {"test": (ok["test"][0][:, 0], ok["test"][1])},
            r"mine test set .* the images are uint8 \(6, 4, 4\)",
        ),
        (lambda ok: {"train": (ok["train"][0], ok["train"][1].int())}, r"the labels are int32 \(6,\); expected int64"),
        (lambda ok: {"train": (ok["train"][0], ok["train"][1][:5])}, "6 images but 5 labels"),
        (lambda ok: {"train": (ok["train"][0], ok["train"][1] + 2)}, r"a label is outside 0\.\.1"),
        (lambda ok: {"classes": ["a"]}, r"mine: has one class only \(a\); give it at least 2"),
        (lambda ok: {"test": (ok["test"][0].repeat(1, 3, 1, 1), ok["test"][1])}, "1 channels and test images 3"),
    ],
)
def test_a_loader_that_returns_something_else_is_refused_with_what_is_expected(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None], reason: str
) -> None:
    changes = change(good())
    found = None if changes is None else data.Images(**{**good(), **changes})
    data.register_dataset(data.DatasetEntry("mine", "vision", "mine", lambda root, image_size: found))
    with pytest.raises(DataError, match=reason) as caught:
        load("mine", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("forget_plugins")
def test_a_file_that_a_loader_cannot_open_is_one_line(tmp_path: Path) -> None:
    def read(root: Path, image_size: int) -> data.Images:
        (root / "absent.bin").read_bytes()
        raise AssertionError

    data.register_dataset(data.DatasetEntry("mine", "vision", "mine", read))
    with pytest.raises(DataError, match=r"absent\.bin: cannot be read \(No such file or directory\)"):
        load("mine", tmp_path)
