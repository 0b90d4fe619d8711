"""Write the pages of a folder from what is on the disk: two commands may do so at the same time, and the last one wins.

A page is replaced as a whole, and only if it is one of ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UsageError, reason
from ..output import replace_text
from ..results import Folder, read_results
from .index import index, index_path
from .markup import GENERATOR
from .page import page_name, report

STALE = 3600.0
"""Seconds after which nobody is writing a file any more."""


def write_run(out: Path, dataset: str, model: str, methods: Sequence[str]) -> list[Path]:
    """Write the report of a data set and model, of which `methods` belong together, and the index; return both.

    Raises UsageError.
    """
    folder = read_results(out)
    group = [result for result in folder.results if result.run == (dataset, model)]
    written = []
    if group:
        written.append(write_page(out / page_name(group[0]), report(group, methods)))
    return [*written, write_page(index_path(out), index(folder))]


def write_folder(folder: Folder) -> Iterator[Path]:
    """Write all reports and the index of a folder, and yield them. Raises UsageError."""
    for group in folder.runs():
        yield write_page(folder.path / page_name(group[0]), report(group))
    yield write_page(index_path(folder.path), index(folder))


def remove_stale_pages(out: Path) -> None:
    """Remove what killed commands left of pages; other ones may be writing theirs, so only what is an hour old."""
    for left in out.glob(".*.html.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()


def write_page(path: Path, text: str) -> Path:
    """Write a page, unless another one is in its place. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            ours = GENERATOR.encode() in file.read(1000)
    except FileNotFoundError:
        ours = True
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason(error)}); name another folder with --out") from None
    if not ours:
        raise UsageError(
            f"{path}: was not written by this program, so it is not replaced; move it away or name another place"
        )
    replace_text(path, text)
    return path
