"""Read the lines and csv records of a text file strictly.

Every record must be UTF-8 without NUL bytes, so that a damaged or foreign file ends in one line that names the file and
the line number, and never in wrong labels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines with their line ends. Raises DataError."""
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
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, columns) of each csv record that is not blank. Raises DataError."""
    reader = csv.reader(read_lines(path), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}; get the file again, or fix that line") from error
