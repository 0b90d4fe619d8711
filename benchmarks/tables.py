"""Write the benchmarks' tables from their JSON into the pages: `python -m benchmarks.tables`; `--check` only looks.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is a benchmark's folder. `NAME FORM` calls
another function of its table.py than `markdown`, and `NAME FORM FILE` reads another file than results.json. Nobody
types a figure. Markers with another NAME belong to another generator and are left alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data.storage.streams import exit_code

__all__ = ["main", "pages", "written"]

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- table: (\w+)(?: (\w+)(?: (\S+))?)? -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that may hold tables."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "benchmarks").glob("*/README.md")),
    ]


def written(text: str) -> str:
    """Return `text` with every table as the JSON files have it now."""

    def table(place: re.Match[str]) -> str:
        name, form, file = place[2], place[3] or "markdown", place[4] or "results.json"
        folder = ROOT / "benchmarks" / name
        if not (folder / "table.py").exists():
            return place[0]
        if (folder / file).exists():
            results = json.loads((folder / file).read_text(encoding="utf-8"))
            markdown: str = getattr(importlib.import_module(f"benchmarks.{name}.table"), form)(results)
        else:
            markdown = "*No result is committed yet.*"
        return f"{place[1]}\n{markdown.strip()}\n\n{place[5]}"

    return PLACE.sub(table, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the tables up to date, or with --check return 1 if one is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a table is out of date")
    given = parser.parse_args(argv)
    stale = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not given.check:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(("out of date: " if given.check else "written: ") + ", ".join(stale))
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
