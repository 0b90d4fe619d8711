"""Read the words and numbers of a text file of word vectors: GloVe's, word2vec's and fastText's, plain or gzipped.

A line is a word and its numbers. Words may hold spaces (`. . .` in glove.840B) and any other character, so the numbers
are counted from the right, and lines are split at the space byte only.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage.folders import unreadable
from ..storage.foreign import HEAD, foreign

_NUMERIC = b"0123456789+-.eE "
_FIRST_LINES = 100  # enough to see the dimension
_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


@dataclass
class WordVectors:
    """The wanted words of a file: their lines and vectors, float32 (dim,)."""

    lines: dict[bytes, bytes] = field(default_factory=dict)
    table: dict[bytes, np.ndarray] = field(default_factory=dict)
    repeated: int = 0
    """Lines that repeat a wanted word; the last line of each word counts."""
    words: int = 0
    """Lines that hold a vector, wanted or not."""
    announced: int = 0
    """The number of words that the file's header gives, 0 without a header."""


def dimension(path: Path) -> int:
    """Return how many numbers each word of the file has, by its header or its first lines. Raises DataError."""
    with _open(path) as file:
        counts: Counter[int] = Counter()
        for number, line in enumerate(islice(file, _FIRST_LINES), 1):
            line = _stripped(line, number)
            if number == 1 and (header := _header(line)):
                return header[1]
            if b"\r" in line:
                raise DataError(f"{path}: its lines end in carriage returns alone; save it with line feeds")
            tabs = b"\t" in line
            if not tabs and line.count(b" ") and b"  " not in line and _is_number(line.rpartition(b" ")[2]):
                counts[line.count(b" ")] += 1
            elif tabs or (line and not counts):
                shown = line[:40].decode("utf-8", "replace")
                raise DataError(
                    f"{path} line {number}: {shown!r}; expected a word and its numbers, separated by one space each; "
                    "get the file again, or name a text file of word vectors"
                )
    if not counts:
        raise DataError(f"{path}: is empty; get the file again")
    return counts.most_common(1)[0][0]


def read_vectors(path: Path, dim: int, wanted: set[bytes]) -> WordVectors:
    """Return the vectors of the `wanted` words in a file of dimension `dim`.

    Every line is checked, but only those of wanted words are converted to numbers: 400,000 lines take seconds. Raises
    DataError, with the line, for a damaged file.
    """
    found = WordVectors()
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            line = _stripped(line, number)
            if not line:
                continue
            if number == 1 and (header := _header(line)):
                found.announced = header[0]
                continue
            word, _, values = line.partition(b" ")
            entries = values.count(b" ") + 1 if values else 0
            if entries > dim:
                word = line.rsplit(b" ", dim)[0]
                values = line[len(word) + 1 :]
                # A word ends in a number in none of the published files, but a damaged line has one too many.
                if not _is_number(word.rpartition(b" ")[2]):
                    entries = dim
            if entries != dim:
                raise DataError(f"{path} line {number}: {entries} numbers; expected {dim}: get the file again")
            if values.translate(None, _NUMERIC):
                raise _not_finite(path, number)
            found.words += 1
            if word in wanted:
                found.repeated += word in found.table
                found.lines[word], found.table[word] = line, _vector(values, path, number)
    return found


@contextmanager
def _open(path: Path) -> Iterator[Iterable[bytes]]:
    """Open a file of word vectors; what goes wrong while it is read is a DataError that names it."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2).startswith(_GZIP)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            head = file.peek(HEAD)[:HEAD]
            if what := foreign(head):
                raise DataError(f"{path}: {what}")
            if b"\0" in head:
                raise DataError(
                    f"{path}: is a binary file; expected text, with a word and its numbers on each line "
                    "(.txt or .vec, may be gzipped)"
                )
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); get the file again") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _stripped(line: bytes, number: int) -> bytes:
    return (line.removeprefix(_MARK) if number == 1 else line).rstrip()


def _header(line: bytes) -> tuple[int, int] | None:
    """Return (words, dimension) if a file's first line says so, as in word2vec's and fastText's format."""
    fields = line.split(b" ")
    if len(fields) == 2 and all(each.isdigit() and len(each) < 10 for each in fields) and int(fields[1]) > 1:
        return int(fields[0]), int(fields[1])
    return None


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _vector(values: bytes, path: Path, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 is reported below
            vector = np.array([float(value) for value in values.split(b" ")], dtype=np.float32)
    except ValueError:
        raise _not_finite(path, number) from None
    if not np.isfinite(vector).all():
        raise _not_finite(path, number)
    return vector


def _not_finite(path: Path, number: int) -> DataError:
    return DataError(f"{path} line {number}: not all values are finite numbers; get the file again, or fix that line")
