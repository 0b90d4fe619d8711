"""The format that AG News and DBpedia share: `train.csv` and `test.csv` with rows of class, title, text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from ..download import locate
from ..errors import DataError
from ..resource import Resource
from ..storage.folders import kind, names_in, skipped_notes
from ..storage.records import read_lines, read_records
from .source import Corpus, Document, Source

# AG News lost the ampersands of its entities to a space (` #39;`, `AT amp;T`). A bare name counts as an entity
# only if it is one of these, so that ` rise;` stays a word.
_NAMES = "quot|amp|lt|gt|nbsp|apos|hellip|mdash|ndash|lsquo|rsquo|ldquo|rdquo"
_BARE_ENTITY = re.compile(rf"(?:^| )(#\d{{1,7}}|#x[0-9a-fA-F]{{1,6}}|{_NAMES});")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]\w{1,7});")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")

FILES = ("train.csv", "test.csv")

# What the headers of published versions call the three columns.
_HEADER = (
    {"class index", "class", "class id", "class label", "label", "category", "topic"},
    {"title", "name", "headline"},
    {"description", "content", "text", "abstract", "body", "document"},
)


def load_class_csv(root: Path, resource: Resource, classes: list[str]) -> Source:
    """Find the two files in the resource's folder (see `locate`), and download them if neither is there.

    A class is a number from 1 on. A `classes.txt` in the folder names the classes instead of `classes`. Title and text
    are joined by a space and cleaned (see `clean`). A header line, as in the files of Kaggle, is skipped, and a note
    says so. Raises DataError if a file is missing.
    """
    folder, found_notes = locate(resource, root)
    files = [_file(folder / name) for name in FILES]
    missing = [file for file in files if kind(file) != "file"]
    if missing:  # a user's file and a downloaded one may not belong together
        raise DataError(f"{missing[0]}: not found; put the official file there, beside the other one")
    names, named_by = folder / "classes.txt", ""
    if kind(names) == "file":
        classes = [line.strip() for line in read_lines(names) if line.strip()]
        if not classes:
            raise DataError(f"{names}: names no class; write one name per line, or remove the file")
        files.append(names)
        named_by = f", as {names} names them"

    def read() -> Corpus:
        notes: list[str] = []
        train, test = (_documents(resource.name, file, len(classes), named_by, notes) for file in files[:2])
        return Corpus(list(classes), train, test, notes)

    skipped: list[str] = []
    names_in(folder, skipped)
    return Source([resource.name, *files], read, [*found_notes, *skipped_notes(resource.name, skipped)])


def clean(text: str) -> str:
    """Return `text` without the artifacts of AG News and DBpedia.

    `\\$` becomes `$`, any other backslash (it stands for a line break) a space; entities are decoded, with their
    ampersand (`&lt;`) or with a space in its place (` #39;`, `AT amp;T`); markup tags become a space.
    """
    text = text.replace("\\$", "$").replace("\\", " ")
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), _BARE_ENTITY.sub(r"&\1;", text))
    return _TAG.sub(" ", text)


def _documents(name: str, path: Path, classes: int, named_by: str, notes: list[str]) -> Iterator[Document]:
    for number, (line, row) in enumerate(read_records(path, lambda row: len(row) == 3)):
        if number == 0 and _is_header(row):
            notes.append(f"{name}: the first line of {path.name} is a header ({', '.join(row)}) and was skipped")
            continue
        if len(row) != 3:
            raise DataError(f"{path} line {line}: {len(row)} columns; expected 3: class, title, text")
        label = row[0].strip()
        # A class has a few digits, and Python refuses to convert a number of thousands of them.
        if not (label.isascii() and label.isdigit() and len(label) < 9 and 1 <= int(label) <= classes):
            expected = f"a number from 1 to {classes}{named_by}"
            raise DataError(f"{path} line {line}: class {label[:40]!r}; expected {expected}")
        yield clean(f"{row[1]} {row[2]}"), int(label) - 1


def _file(path: Path) -> Path:
    """Return the csv file; Windows unpacks Kaggle's `train.csv.zip` into a folder `train.csv`."""
    return path / path.name if kind(path) == "folder" else path


def _is_header(row: list[str]) -> bool:
    """Tell whether a row names the three columns in their order. No document begins with such a word for its class."""
    words = [" ".join(column.casefold().replace("_", " ").split()) for column in row]
    return len(words) == len(_HEADER) and all(word in known for word, known in zip(words, _HEADER, strict=True))
