"""Readers of the official text files: AG News, DBpedia and IMDb, as documents with their labels.

Every record goes through one strict path (UTF-8, no NUL byte, the right columns, a known class), so that a
damaged or foreign file ends in one line that names the file and the line, and never in wrong labels.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ALPackage.randomness import generator

from ..errors import DataError

Document = tuple[str, int]

_AG_NEWS = ["World", "Sports", "Business", "Sci/Tech"]
_DBPEDIA = [
    *("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation", "Building"),
    *("NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
]
CLASS_CSV = {"agnews": ("ag_news_csv", _AG_NEWS), "dbpedia": ("dbpedia_csv", _DBPEDIA)}

IMDB_CLASSES = ["negative", "positive"]
IMDB_FILES = ("IMDB_Dataset.csv", "IMDB Dataset.csv")
IMDB_SPLIT_SEED = 0

# AG News lost the ampersands of its entities to a space (` #39;`, `AT amp;T`). A bare name counts as an entity
# only if it is one of these, so that ` rise;` stays a word.
_NAMES = "quot|amp|lt|gt|nbsp|apos|hellip|mdash|ndash|lsquo|rsquo|ldquo|rdquo"
_BARE_ENTITY = re.compile(rf"(?:^| )(#\d{{1,7}}|#x[0-9a-fA-F]{{1,6}}|{_NAMES});")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]\w{1,7});")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass(frozen=True)
class Corpus:
    """Documents of a data set with labels in [0, classes), and facts that the user should be told."""

    classes: list[str]
    train: Iterable[Document]
    test: Iterable[Document]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where a data set was found: `identity` is all that its content depends on, `read` reads it."""

    identity: list[Path | str | int]
    read: Callable[[], Corpus]


def class_csv(name: str, root: Path) -> Source | None:
    """Find AG News or DBpedia under `root`; None where neither csv file is there.

    `train.csv` and `test.csv` hold rows of class (from 1), title, text; a `classes.txt` beside them names the
    classes. The two texts are joined by a space and cleaned (see `clean`).
    """
    folder, classes = CLASS_CSV[name]
    files = [root / folder / f"{part}.csv" for part in ("train", "test")]
    missing = [file for file in files if not file.is_file()]
    if len(missing) == len(files):
        return None
    if missing:
        raise DataError(f"{missing[0]}: not found; put the official file there, beside the other one")
    names = root / folder / "classes.txt"
    if names.is_file():
        classes = [line.strip() for line in _lines(names) if line.strip()]
        files.append(names)

    def read() -> Corpus:
        return Corpus(list(classes), _rows(files[0], len(classes)), _rows(files[1], len(classes)))

    return Source([name, *files], read)


def imdb(root: Path) -> Source | None:
    """Find IMDb under `root`: the csv of 50,000 reviews, else the folders of `aclImdb`; None without either.

    The csv knows no test set, and holds some reviews twice: each text is kept once, and one half, drawn with a
    constant seed, is test for every method and run. `aclImdb` keeps the split that it comes with.
    """
    for file in (root / name for name in IMDB_FILES):
        if file.is_file():
            return Source(["imdb", file, IMDB_SPLIT_SEED], partial(_imdb_csv, file))
    folder = root / "aclImdb"
    if not folder.is_dir():
        return None
    parts = {part: _review_files(folder / part) for part in ("train", "test")}
    identity = [f"{path.relative_to(root)}" for reviews in parts.values() for path, _ in reviews]
    contents = [path for reviews in parts.values() for path, _ in reviews]
    note = f"imdb: {folder} with its own split into train and test"
    return Source(
        ["imdb", *identity, *contents],
        lambda: Corpus(IMDB_CLASSES, _review_texts(parts["train"]), _review_texts(parts["test"]), [note]),
    )


def clean(text: str) -> str:
    """Return `text` without the artifacts of AG News and DBpedia.

    `\\$` becomes `$`, any other backslash (it stands for a line break) a space; entities are decoded, with their
    ampersand (`&lt;`) or with a space in its place (` #39;`, `AT amp;T`); markup tags become a space.
    """
    text = text.replace("\\$", "$").replace("\\", " ")
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), _BARE_ENTITY.sub(r"&\1;", text))
    return _TAG.sub(" ", text)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if b"\0" in line:
                    raise DataError(f"{path} line {number}: a NUL byte; get the file again, or save it as UTF-8 text")
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{path} line {number}: not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from error


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}; get the file again, or mend that line") from error


def _rows(path: Path, classes: int) -> Iterator[Document]:
    for line, row in _records(path):
        if len(row) != 3:
            raise DataError(f"{path} line {line}: {len(row)} columns; expected 3: class, title, text")
        label = row[0].strip()
        # A class has a few digits; Python refuses to read a number of thousands of them.
        if not (label.isascii() and label.isdigit() and len(label) < 9 and 1 <= int(label) <= classes):
            raise DataError(f"{path} line {line}: class {label[:40]!r}; expected a number from 1 to {classes}")
        yield clean(f"{row[1]} {row[2]}"), int(label) - 1


def _imdb_csv(path: Path) -> Corpus:
    records = _records(path)
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
        if label not in IMDB_CLASSES:
            raise DataError(f"{path} line {line}: sentiment {label[:40]!r}; expected positive or negative")
        reviews.setdefault(row[text_at], IMDB_CLASSES.index(label))
        count += 1
    documents = list(reviews.items())
    order = torch.randperm(len(documents), generator=generator("imdb", IMDB_SPLIT_SEED)).tolist()
    shuffled = [documents[number] for number in order]
    half = len(shuffled) // 2
    notes = [
        f"imdb: {count - len(documents)} repeated reviews removed, {len(documents)} of {count} kept",
        f"imdb: the csv has no test set, so {half} reviews drawn with the constant seed {IMDB_SPLIT_SEED} are test, "
        "the same for every method, seed and run",
    ]
    return Corpus(IMDB_CLASSES, shuffled[half:], shuffled[:half], notes)


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
        yield "".join(_lines(path)), label
