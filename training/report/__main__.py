"""`python -m training.report RESULT_DIR ..`: write the pages of folders of results again, and compare several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from data.storage.streams import exit_code

from ..config.paths import user_path
from ..errors import UsageError
from .html.compare import comparison
from .html.write import read_results, write_folder, write_page
from .results import Folder

COMPARISON = Path("comparison.html")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help shows what is possible)")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, print their names, and return the exit code: 2 for a mistake, which is one line on stderr."""
    try:
        for path in _write(_parse(argv)):
            print(path, flush=True)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m training.report",
        description="Write the HTML reports and the index of each folder of results from its files. For several "
        f"folders, also write {COMPARISON}, which compares their runs.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", metavar="RESULT_DIR", help="where a command left its results (--out)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"where the comparison goes; given, a single folder gets one too (default: {COMPARISON})",
    )
    return parser.parse_args(argv)


def _write(arguments: argparse.Namespace) -> list[Path]:
    folders: dict[str, Folder] = {}
    seen = set()
    for text in arguments.folders:
        folder = _folder(text)
        if folder.path.resolve() not in seen:  # the same folder twice is no comparison
            folders[text] = folder
        seen.add(folder.path.resolve())
    out = user_path(arguments.out) if arguments.out is not None else COMPARISON if len(folders) > 1 else None
    written = [path for folder in folders.values() for path in write_folder(folder)]
    if out is not None:
        written.append(write_page(out, comparison(folders, out.resolve().parent)))
    return written


def _folder(text: str) -> Folder:
    """Return the results of a folder that has some. Raises UsageError."""
    path = user_path(text)
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder; name one that holds results")
    if not path.is_dir():
        raise UsageError(f"{path}: is a file; name the folder that it is in")
    folder = read_results(path)
    if folder.results:
        return folder
    if folder.unreadable:
        name, why = next(iter(folder.unreadable.items()))
        raise UsageError(f"{path / name}: cannot be read as results ({why}), and there are no others in the folder")
    inside = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and any(entry.glob("*_*_*.json"))]
    hint = f"did you mean {path / inside[0]}?" if inside else "name a folder that a command wrote to (--out)"
    raise UsageError(f"{path}: there are no results in it; {hint}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
