"""The page of a folder: all its runs in one table, `index.html`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..comparison import spread
from ..results import Folder
from .markup import Child, el, page
from .page import link, moment
from .tables import table
from .words import counted, listed

HEAD = ("run", "method", "test accuracy (%)", "turns", "epochs", "samples/s", "began", "state")


def index(folder: Folder) -> str:
    """Return the page."""
    name = folder.path.resolve().name or str(folder.path)
    return page(f"Results in {name}", _body(name, folder))


def _body(name: str, folder: Folder) -> Iterator[Child]:
    groups = list(folder.runs())
    rows: list[list[Child]] = []
    for group in groups:
        for number, result in enumerate(group):
            summary, (dataset, model) = result.summary, result.run
            speed = "–" if summary.samples_per_s is None else f"{summary.samples_per_s:,.0f}"
            shown = el("a", f"{dataset}, {model}", href=link(result)) if number == 0 else f"{dataset}, {model}"
            cells: list[Child] = [shown, result.title, spread(summary.test_acc), f"{len(result.info.seeds)}"]
            epochs = str(result.info.config.get("epochs", "–"))
            rows.append([*cells, epochs, speed, moment(result.began), result.state])
    yield el("header", el("h1", f"Results in {name}"))
    open_ = sum(any(not result.finished for result in group) for group in groups)
    told = f"{counted(len(groups), 'run')}{f', {open_} of them not finished' * bool(open_)}."
    yield el(
        "main",
        el(
            "p", told, " Test accuracy is that of the epoch chosen on validation, mean ± standard deviation over turns."
        ),
        table("By data set and model", HEAD, rows, words=(1, 7)) if rows else None,
        *_problems(folder),
    )


def _problems(folder: Folder) -> Iterator[Child]:
    if folder.unreadable:
        yield el("h2", "Not readable")
        yield el("ul", *(el("li", el("code", name), f": {why}") for name, why in folder.unreadable.items()))
    if folder.others:
        yield el("p", f"Other JSON files: {listed(folder.others)}.", class_="soft")


def index_path(folder: Path) -> Path:
    """Return where the page of a folder lies."""
    return folder / "index.html"
