"""What is to be predicted: picture files, or lines of text. Each input has a name for its line of the output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.storage.clutter import is_clutter
from data.storage.records import read_lines

from ..config.paths import user_path
from ..errors import UsageError

#: Stands for the standard input.
STDIN = "-"


class Input(NamedTuple):
    """One input: its name in the output, and the file or the text."""

    name: str
    content: Path | str


def pictures(inputs: Sequence[str]) -> list[Input]:
    """Return the files that the words of a command name: pictures, and those in folders. Raises UsageError."""
    from data.vision.pictures import is_picture

    found: list[Path] = []
    for text in inputs:
        if text == STDIN:
            raise UsageError("-: the network takes pictures, which are read from files; name files or folders")
        path = user_path(text)
        if path.is_dir():
            inside = [file for file in _files(path) if is_picture(file.name)]
            if not inside:
                raise UsageError(f"{path}: there are no pictures in it, by the endings of its files")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder; name pictures, or a folder of them")
    return [Input(str(path), path) for path in found]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and the folders in it, by name, without what operating systems leave."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        yield from (Path(place) / name for name in sorted(files) if not is_clutter(name))


def lines(inputs: Sequence[str]) -> Iterator[Input]:
    """Return an iterator over the lines of files, or of the standard input; an empty line is a text without words.

    Raises UsageError for a file that is not there, and DataError when it comes to a line that is no text.
    """
    paths = {text: user_path(text) for text in inputs if text != STDIN}
    for path in paths.values():
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; name files, of which every line is a text")
        if not path.exists():
            raise UsageError(
                f"{path}: there is no such file; give the text itself with --text, or name a file of lines"
            )
    return _lines(inputs, paths)


def _lines(inputs: Sequence[str], paths: dict[str, Path]) -> Iterator[Input]:
    for text in inputs:
        read = _standard_input() if text == STDIN else read_lines(paths[text])
        yield from (Input(f"{text}:{number}", line.rstrip("\r\n")) for number, line in enumerate(read, 1))


def _standard_input() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"- line {number}: not UTF-8; convert the text to UTF-8") from None
