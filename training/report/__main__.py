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
from .html.write import write_folder, write_page
from .results import Folder, named_folder

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
        folder = named_folder(text)
        if folder.path.resolve() not in seen:  # the same folder twice is no comparison
            folders[text] = folder
        seen.add(folder.path.resolve())
    out = user_path(arguments.out) if arguments.out is not None else COMPARISON if len(folders) > 1 else None
    written = [path for folder in folders.values() for path in write_folder(folder)]
    if out is not None:
        written.append(write_page(out, comparison(folders, out.resolve().parent)))
    return written


if __name__ == "__main__":
    sys.exit(exit_code(main))
