"""The reference of all keys, generated from the schema: for `--help`, as tables for the documentation, as JSON files.

`python -m training.config.reference` prints the tables. In a page, a table stands between the marks
`<!-- table: config vision -->` (or `config text`) and `<!-- end -->`; `python -m training.config.reference FILE..`
brings these pages up to date, and the files of `CONFIGS`, which hold every key with its default.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from data.storage.streams import exit_code
from models.settings import expected

from .overrides import settings_at, split_key
from .schema import CONFIGS, Task, schema
from .sections import Section, sections

PLACE = re.compile(r"(<!-- table: config (vision|text) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 110


def help_text(task: Task) -> str:
    """Return all keys of a task with their defaults, legal values and help, for a terminal."""
    lines = ["keys of the configuration (in the file, or --set KEY=VALUE), with their defaults:"]
    for section in sections(task):
        lines += ["", f"{section.title}:"]
        for key, default, values, about in _rows(task, section):
            about = about.replace("`", "").replace('"', "")
            lines.append(f"  {key}={default}")
            lines += textwrap.wrap(f"{about} [{values}]", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def markdown(task: Task) -> str:
    """Return all keys of a task as Markdown: a table per section."""
    parts = []
    for section in sections(task):
        rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
        for key, default, values, about in _rows(task, section):
            cells = f"`{key}`", f"`{default}`", values, about
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append(f"**{_title(section)}**\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def defaults(task: Task) -> str:
    """Return the configuration file that ships with a task."""
    return f"{json.dumps(schema(task)().model_dump(mode='json'), indent=4)}\n"


def written(text: str) -> str:
    """Return the text of a page with its tables as the schema has them now."""
    tasks = {name: name for name in get_args(Task)}
    return PLACE.sub(lambda place: f"{place[1]}\n{markdown(tasks[place[2]])}\n\n{place[3]}", text)


def _title(section: Section) -> str:
    kind, _, names = section.title.partition(" ")
    return f"{kind.capitalize()} {', '.join(f'`{name}`' for name in names.split(', '))}" if names else kind.capitalize()


def _rows(task: Task, section: Section) -> Iterator[tuple[str, str, str, str]]:
    """Iterate over (key, default, legal values, help) of a section."""
    whole = schema(task)
    for key in section.keys:
        *before, name = split_key(key, whole)
        owner = settings_at(whole, before)
        assert owner is not None
        field = owner.model_fields[name]
        about = " ".join((field.description or "").split())
        default = field.get_default(call_default_factory=True)
        yield key, json.dumps(default), expected(owner, name), about


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of both tasks, or bring files up to date; with --check return 1 where one is not."""
    parser = argparse.ArgumentParser(prog="python -m training.config.reference", description=__doc__)
    about = f"Markdown pages with tables of the keys, {' or '.join(CONFIGS.values())}"
    parser.add_argument("pages", nargs="*", type=Path, metavar="FILE", help=about)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a file is out of date")
    given = parser.parse_args(argv)
    if not given.pages:
        print("\n\n".join(f"## {task}\n\n{markdown(task)}" for task in get_args(Task)))
    stale = []
    for page in given.pages:
        try:
            text = page.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{page}: cannot be read ({error})")
        task = next((task for task, name in CONFIGS.items() if name == page.name), None)
        if (new := defaults(task) if task else written(text)) != text:
            stale.append(str(page))
            if not given.check:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(("out of date: " if given.check else "written: ") + ", ".join(stale))
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
