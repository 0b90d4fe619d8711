"""Read the lines and csv records of a text file strictly.

Every record must be UTF-8 without NUL bytes, so that a damaged or foreign file ends in one line that names the file and
the line number, and never in wrong labels. Lines may end as on Unix, Windows or an old Mac, and a byte order mark at
the beginning is no part of the text.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from ..errors import DataError
from .folders import unreadable
from .foreign import HEAD, foreign

#: Characters of a column. Python's default, 131,072, is less than a long document has.
csv.field_size_limit(1 << 30)

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines with their line ends. Raises DataError."""
    try:
        with path.open("rb") as file:
            if what := foreign(file.peek(HEAD)[:HEAD]):
                raise DataError(f"{path}: {what}")
            for number, line in enumerate(_split_at_returns(file), 1):
                if b"\0" in line:
                    raise DataError(f"{path} line {number}: a NUL byte; get the file again, or save it as UTF-8 text")
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{path} line {number}: not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise unreadable(path, error) from error


def read_records(path: Path, expected: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, columns) of each csv record that is not blank.

    `expected` tells whether a record has the right columns. If the first one has not, but would have with another
    separator than the comma, the error says so. Raises DataError.
    """
    reader = csv.reader(read_lines(path), strict=True)
    first, begin = True, 1
    try:
        for row in reader:
            if row:
                if first and not expected(row):
                    _refuse_other_separators(path, expected)
                first = False
                yield reader.line_num, row
            begin = reader.line_num + 1
    except csv.Error as error:
        if first:
            _refuse_other_separators(path, expected)
        # A quote that is never closed is at the record's beginning, which may be thousands of lines before its end.
        end = reader.line_num
        where = f"line {end}" if end <= begin else f"lines {begin} to {end}"
        raise DataError(f"{path} {where}: {error}; get the file again, or fix that record") from error


def _split_at_returns(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `lines`, those with a carriage return inside in pieces: it ends a line on old Macs."""
    for line in lines:
        if b"\r" in line.rstrip(b"\r\n"):
            yield from line.splitlines(keepends=True)
        else:
            yield line


def _refuse_other_separators(path: Path, expected: Callable[[list[str]], bool]) -> None:
    line = next((line for line in islice(read_lines(path), 100) if line.strip()), "")
    for separator, name in _SEPARATORS.items():
        try:
            fits = any(expected(row) for row in csv.reader([line], delimiter=separator, strict=True))
        except csv.Error:
            continue
        if fits:
            raise DataError(f"{path}: its columns are separated by {name}; save it with commas, as csv")
