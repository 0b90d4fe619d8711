"""The page that compares runs from several folders, by data set and model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from ...config.objectives import flat
from ...errors import UsageError
from ..comparison import spread
from ..curves import chosen
from ..look import AL, BP, OTHERS
from ..results import Folder, Result
from ..saved import Saved, read_table
from .markup import Child, el, page
from .page import figures_table, page_name, unbroken
from .plots import Shown, accuracy_plots, methods_legend, turns_plot
from .tables import differing, table, value
from .words import comparisons, listed, turns_of, with_reference

STYLES = (AL, BP, *OTHERS)


def comparison(folders: Mapping[str, Folder], home: Path) -> str:
    """Return the page about all runs of the folders, by the names that the user knows them by, as seen from `home`.

    Raises UsageError where no table can be read.
    """
    groups: dict[tuple[str, str], list[tuple[str, Result]]] = {}
    for name, folder in folders.items():
        for result in folder.results:
            groups.setdefault(result.run, []).append((name, result))
    return page(f"Comparison of {listed(list(folders))}", _body(folders, groups, home))


def _body(
    folders: Mapping[str, Folder], groups: Mapping[tuple[str, str], list[tuple[str, Result]]], home: Path
) -> Iterator[Child]:
    sources = [
        el("li", el("a", name, href=_address(folder.path / "index.html", home))) for name, folder in folders.items()
    ]
    yield el(
        "header",
        el("h1", "Comparison of runs"),
        el("ul", *sources),
    )
    told = el(
        "p",
        "Runs are in the order in which they were given, and each is compared with the first one of its method, or "
        "with BP where all come from one folder. They are not ranked by test accuracy: to choose among configurations, "
        "use the validation accuracy.",
    )
    sections = [_section(number, runs, home) for number, runs in enumerate(groups.values(), start=1)]
    yield el("main", told, *sections)


def _section(number: int, given: Sequence[tuple[str, Result]], home: Path) -> Child:
    dataset, model = given[0][1].run
    several = len({name for name, _ in given}) > 1
    runs, bad = [], []
    for place, (name, result) in enumerate(given):
        label = f"{result.title} in {name}" if several else result.title
        try:
            saved = Saved(read_table(result.csv), result.info.loss_titles)
        except UsageError as error:
            bad.append(el("p", f"Left out: {error}"))
        else:
            runs.append(Shown(label, STYLES[place % len(STYLES)], result, saved))
    heading = el("h2", f"{dataset}, {model}", id=f"part-{number}")
    if not runs:
        return el("section", heading, *bad, aria_labelledby=f"part-{number}")
    plans = {run.label: turns_of(run) for run in runs}
    same = len(set(plans.values())) == 1
    told = (
        f"All in {next(iter(plans.values()))}" if same else "; ".join(f"{name}: {plan}" for name, plan in plans.items())
    )
    paragraphs = [el("p", unbroken(text)) for text in comparisons(_pairs(runs))]
    links = [
        el("li", el("a", run.label, href=_address(run.result.path.with_name(page_name(run.result)), home)))
        for run in runs
    ]
    return el(
        "section",
        heading,
        *paragraphs,
        el("p", f"{told}."),
        figures_table(
            runs,
            "Mean ± standard deviation over the turns, where there are several",
            ["validation accuracy (%)", *(spread(list(chosen(run.table)["val_acc"])) for run in runs)],
        ),
        el("figure", turns_plot(runs), el("figcaption", "Test accuracy of each turn"), class_="alone"),
        methods_legend(runs, star=True),
        el("div", *accuracy_plots(runs), class_="figures"),
        *_differences(runs),
        el("h3", "Reports"),
        el("ul", *links),
        *bad,
        aria_labelledby=f"part-{number}",
    )


def _pairs(runs: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """Return each run with the first one of its method or, where there is none, with the first of all."""
    if len({run.result.path.parent for run in runs}) == 1:
        return with_reference(runs)
    firsts: dict[str, Shown] = {}
    pairs = []
    for run in runs:
        other = firsts.setdefault(run.result.method, run)
        if other is not run:
            pairs.append((run, other))
    return pairs or [(run, runs[0]) for run in runs[1:]]


def _differences(runs: Sequence[Shown]) -> Iterator[Child]:
    """Yield what differs in the configurations, which is what a difference in the figures may come from."""
    configs = {run.label: {**flat(run.result.info.config), "seeds": run.result.info.seeds} for run in runs}
    names = [name for name in differing(configs) if name != "outputpath"]
    if not names:
        if len(runs) > 1:
            yield el("p", "Their configurations are the same.")
        return
    rows: list[list[Child]] = [
        [name, *(value(config[name]) if name in config else "–" for config in configs.values())] for name in names
    ]
    yield table("What differs in their configurations", ["key", *configs], rows, words=range(1, len(configs) + 1))


def _address(path: Path, home: Path) -> str:
    """Return the link to a file from the folder of the page."""
    try:
        relative = Path(os.path.relpath(path, home)).as_posix()
    except ValueError:  # another drive, on Windows
        return path.resolve().as_uri()
    return f"./{quote(relative, errors='surrogateescape')}"
