"""IMDb: film reviews, positive or negative, as one csv file or as the official folders `aclImdb`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from ALPackage.randomness import generator

from ..download import fetch, unpack_provided
from ..errors import DataError
from ..resource import Resource
from ..storage.folders import counted, find_folder, kind, names_in, skipped_notes
from ..storage.records import read_lines, read_records
from ..storage.search import find_file
from .source import Corpus, Document, Source

CLASSES = ["negative", "positive"]
SPLIT_SEED = 0
_LABELS = ("neg", "pos")  # folders
_COLUMNS = {"review", "sentiment"}

CSV_FILES = ("IMDB_Dataset.csv", "IMDB Dataset.csv")
_CSV = Resource(
    "imdb",
    ".",
    markers=("IMDB[_ ]Dataset.csv",),
    # As people pack it, and as Kaggle's command line calls it.
    archives=(
        *("IMDB_Dataset.csv", "IMDB Dataset.csv", "IMDB_Dataset", "IMDB Dataset"),
        "imdb-dataset-of-50k-movie-reviews",
    ),
)
_FOLDERS = Resource(
    "imdb", "aclImdb", markers=("train", "test", "imdb.vocab"), distinctive=True, archives=("aclImdb_v1",)
)
#: Either of them, for `python -m data.download`, and what to do if there is neither.
RESOURCE = Resource(
    "imdb",
    ".",
    by_hand="IMDB_Dataset.csv (or 'IMDB Dataset.csv', columns review,sentiment), or the folder aclImdb/ or its "
    "archive aclImdb_v1.tar.gz from https://ai.stanford.edu/~amaas/data/sentiment/,",
    markers=(*_CSV.markers, "aclImdb"),
    archives=(*_CSV.archives, "aclImdb", *_FOLDERS.archives),
)


def load(root: Path) -> Source:
    """Find IMDb under `root`: the csv file of 50,000 reviews, else the folders. `DataError` says where to get them.

    The csv file has no test set and holds some reviews twice. Each text is kept once, or not at all if it occurs with
    both labels, and one half, drawn with a constant seed, is the test set for every method and run. The folders keep
    the split that they come with.
    """
    found = _find(root)
    if found is None:
        if not any(unpack_provided(resource, root) for resource in (_CSV, _FOLDERS)):
            fetch(RESOURCE, root)  # raises: there is no public address
        found = _find(root)
    assert found is not None  # what is unpacked has the markers
    return found


def _find(root: Path) -> Source | None:
    """Return the csv file, else the folders; None if there is neither."""
    if file := find_file(root, CSV_FILES):
        moved = [] if file.parent == root else [f"imdb: read from {file}; its usual place is {root}"]
        return Source(["imdb", file, SPLIT_SEED], partial(_read_csv, file), moved)
    found = find_folder(root, _FOLDERS.result, _FOLDERS.markers, title="imdb", distinctive=_FOLDERS.distinctive)
    return found and _folders(*found)


def _read_csv(path: Path) -> Corpus:
    records = read_records(path, lambda row: set(map(_name, row)) >= _COLUMNS)
    _, header = next(records, (0, []))
    names = list(map(_name, header))
    if not set(names) >= _COLUMNS:
        raise DataError(f"{path} line 1: columns {', '.join(names)[:80]!r}; expected review,sentiment")
    if twice := next((name for name in sorted(_COLUMNS) if names.count(name) > 1), None):
        raise DataError(f"{path} line 1: two columns are called {twice}; rename or remove one")
    text_at, label_at = names.index("review"), names.index("sentiment")
    labels: dict[str, list[int]] = {}  # of each text, one for each row that has it
    for line, row in records:
        if len(row) != len(names):
            raise DataError(f"{path} line {line}: {len(row)} columns; expected {len(names)}: {', '.join(names)}")
        label = _name(row[label_at])
        if label not in CLASSES:
            raise DataError(f"{path} line {line}: sentiment {label[:40]!r}; expected positive or negative")
        labels.setdefault(row[text_at], []).append(CLASSES.index(label))
    count = sum(map(len, labels.values()))
    both = [found for found in labels.values() if len(set(found)) > 1]
    unclear = sum(map(len, both))
    documents = [(text, found[0]) for text, found in labels.items() if len(set(found)) == 1]
    order = torch.randperm(len(documents), generator=generator("imdb", SPLIT_SEED)).tolist()
    shuffled = [documents[number] for number in order]
    half = len(shuffled) // 2
    notes = [
        f"imdb: {count - unclear - len(documents)} repeated reviews removed, {len(documents)} of {count} kept",
        f"imdb: the csv file has no test set, so {half} reviews drawn with the constant seed {SPLIT_SEED} are test, "
        "the same for every method, seed and run",
    ]
    if both:
        notes.append(
            f"imdb: left out: {counted(len(both), 'review')} with both labels, {counted(unclear, 'row')} in all"
        )
    return Corpus(CLASSES, shuffled[half:], shuffled[:half], notes)


def _name(column: str) -> str:
    return column.strip().lower()


def _folders(folder: Path, notes: list[str]) -> Source:
    parts: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    skipped: list[str] = []
    others: list[str] = []
    unread: list[str] = []
    for part, reviews in parts.items():
        beside = names_in(folder / part) if kind(folder / part) == "folder" else []
        unread += [
            f"{part}/{name}" for name in beside if name not in _LABELS and kind(folder / part / name) == "folder"
        ]
        for label, name in enumerate(_LABELS):
            reviews += [(path, label) for path in _review_files(folder / part / name, skipped, others)]
    notes = [*notes, *skipped_notes("imdb", skipped)]
    if unread:
        notes.append(f"imdb: folders beside neg/ and pos/ not read: {', '.join(unread)}")
    if others:
        notes.append(f"imdb: not read, as not .txt: {counted(len(others), 'file')}")
    contents = [path for reviews in parts.values() for path, _ in reviews]
    identity = [path.relative_to(folder).as_posix() for path in contents]
    split = "imdb: the folders of reviews with their own split into train and test"
    return Source(
        ["imdb", *identity, *contents],
        lambda: Corpus(CLASSES, _review_texts(parts["train"]), _review_texts(parts["test"]), [split]),
        notes,
    )


def _review_files(folder: Path, skipped: list[str], others: list[str]) -> list[Path]:
    """Return the reviews in a folder; add what an operating system left to `skipped`, anything else to `others`."""
    names = names_in(folder, skipped) if kind(folder) else []
    reviews = [name for name in names if name.lower().endswith(".txt") and kind(folder / name) == "file"]
    if not reviews:
        raise DataError(f"{folder}: no .txt reviews; unpack the whole of aclImdb_v1.tar.gz again")
    others += set(names) - set(reviews)
    return [folder / name for name in reviews]


def _review_texts(files: list[tuple[Path, int]]) -> Iterator[Document]:
    for path, label in files:
        yield "".join(read_lines(path)), label
