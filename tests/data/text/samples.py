"""Small text data sets in the official formats, and how the tests load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from data.dataset import Dataset
from data.text.load import load_text

SETTINGS: dict[str, Any] = {"max_len": 8, "min_len": 1, "vocab_size": 1000, "val_fraction": 0.2, "seed": 0}


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def load(name: str, root: Path, **settings: Any) -> Dataset:
    return load_text(name, root=root, **{**SETTINGS, **settings})


def row(label: int, title: str, text: str) -> str:
    return ",".join('"' + str(field).replace('"', '""') + '"' for field in (label, title, text)) + "\n"


def write_csv(folder: Path, train: str, test: str, classes: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(train, encoding="utf-8", newline="")
    (folder / "test.csv").write_text(test, encoding="utf-8", newline="")
    if classes is not None:
        (folder / "classes.txt").write_text(classes)
    return folder


def decode(data: Dataset, split: str, position: int) -> list[str]:
    (tokens, lengths), _ = getattr(data, split).rows(torch.tensor([position]))
    return [data.vocabulary[number] for number in tokens[0, : int(lengths)].tolist()]
