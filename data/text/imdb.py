"""IMDb: film reviews, positive or negative, as one csv file or as the official folders `aclImdb`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from ALPackage.randomness import generator

from ..download import fetch
from ..errors import DataError
from ..resource import Resource
from ..storage.records import read_lines, read_records
from .source import Corpus, Document, Source

CLASSES = ["negative", "positive"]
CSV_FILES = ("IMDB_Dataset.csv", "IMDB Dataset.csv")
FOLDER = "aclImdb"
SPLIT_SEED = 0

RESOURCE = Resource(
    "imdb",
    CSV_FILES[0],
    by_hand="IMDB_Dataset.csv (or 'IMDB Dataset.csv', columns review,sentiment), or the folder aclImdb/ of "
    "https://ai.stanford.edu/~amaas/data/sentiment/",
)


def load(root: Path) -> Source:
    """Find IMDb under `root`: the csv file of 50,000 reviews, else the folders. `DataError` says where to get them.

    The csv file has no test set and holds some reviews twice. Each text is kept once, and one half, drawn with a
    constant seed, is the test set for every method and run. The folders keep the split that they come with.
    """
    for file in (root / name for name in CSV_FILES):
        if file.is_file():
            return Source(["imdb", file, SPLIT_SEED], partial(_read_csv, file))
    folder = root / FOLDER
    if not folder.is_dir():
        fetch(RESOURCE, root)  # raises: there is no public address
    parts = {part: _review_files(folder / part) for part in ("train", "test")}
    identity = [f"{path.relative_to(root)}" for reviews in parts.values() for path, _ in reviews]
    contents = [path for reviews in parts.values() for path, _ in reviews]
    note = f"imdb: {folder} with its own split into train and test"
    return Source(
        ["imdb", *identity, *contents],
        lambda: Corpus(CLASSES, _review_texts(parts["train"]), _review_texts(parts["test"]), [note]),
    )


def _read_csv(path: Path) -> Corpus:
    records = read_records(path)
    _, header = next(records, (0, []))
    names = [name.strip().lower() for name in header]
    if not {"review", "sentiment"} <= set(names):
        raise DataError(f"{path} line 1: columns {', '.join(names)[:80]!r}; expected review,sentiment")
    text_at, label_at = names.index("review"), names.index("sentiment")
    reviews: dict[str, int] = {}
    count = 0
    for line, row in records:
        if len(row) != len(names):
            raise DataError(f"{path} line {line}: {len(row)} columns; expected {len(names)}: {', '.join(names)}")
        label = row[label_at].strip().lower()
        if label not in CLASSES:
            raise DataError(f"{path} line {line}: sentiment {label[:40]!r}; expected positive or negative")
        reviews.setdefault(row[text_at], CLASSES.index(label))
        count += 1
    documents = list(reviews.items())
    order = torch.randperm(len(documents), generator=generator("imdb", SPLIT_SEED)).tolist()
    shuffled = [documents[number] for number in order]
    half = len(shuffled) // 2
    notes = [
        f"imdb: {count - len(documents)} repeated reviews removed, {len(documents)} of {count} kept",
        f"imdb: the csv file has no test set, so {half} reviews drawn with the constant seed {SPLIT_SEED} are test, "
        "the same for every method, seed and run",
    ]
    return Corpus(CLASSES, shuffled[half:], shuffled[:half], notes)


def _review_files(folder: Path) -> list[tuple[Path, int]]:
    found = []
    for label, name in enumerate(("neg", "pos")):
        files = sorted((folder / name).glob("*.txt"))
        if not files:
            raise DataError(f"{folder / name}: no .txt reviews; unpack the whole of aclImdb_v1.tar.gz again")
        found += [(file, label) for file in files]
    return found


def _review_texts(files: list[tuple[Path, int]]) -> Iterator[Document]:
    for path, label in files:
        yield "".join(read_lines(path)), label
