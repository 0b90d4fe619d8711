"""The report of a data set and model: `<dataset>_<model>.html`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element

from ...config.objectives import dotted, flat
from ...errors import UsageError
from ..comparison import comparison_rows
from ..curves import curve
from ..exits import mean_budgets
from ..look import styles
from ..results import Result, select
from ..saved import Saved, read_table
from .markup import Child, el, page
from .plots import Shown, accuracy_plots, depth_plots, exits_plot, loss_plots, methods_legend, turns_plot
from .tables import differing, facts, table
from .words import counted, listed, remarks, summary
from .workers import plan, timeline, usage

#: Notes that are seen at once, and rows of the table of epochs.
NOTES, ROWS = 8, 100
#: Facts about the environment in which methods of one command differ.
EXPECTED = ("began", "devices", "schedule", "threads")


def report(group: Sequence[Result], methods: Sequence[str] = ()) -> str:
    """Return the page of the methods of one data set and model, of which those of `methods` belong together.

    Methods that cannot be compared with them, or that cannot be read, are named and left out. Raises UsageError where
    none is left.
    """
    results, left_out = select(group, methods)
    runs, style = [], styles([result.method for result in results])
    for result in results:
        try:
            saved = Saved(read_table(result.csv), result.info.loss_titles, result.record.early_exit)
        except UsageError as error:
            left_out[result.title] = str(error).removeprefix(f"{result.path.parent}/")
        else:
            runs.append(Shown(result.title, style[result.method], result, saved))
    if not runs:
        raise UsageError("; ".join(left_out.values()))
    dataset, model = runs[0].result.run
    return page(f"{dataset}, {model}: {listed([run.label for run in runs])}", _body(runs, left_out))


def link(result: Result) -> str:
    """Return the name of the page that shows a result, as a link."""
    return f"./{quote(page_name(result))}"


def page_name(result: Result) -> str:
    """Return the name of the page that shows a result."""
    dataset, model = result.run
    return f"{dataset}_{model}.html"


def moment(when: datetime) -> str:
    """Return a time for a reader."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def unbroken(text: str) -> str:
    """Return a text in which a figure stays on a line with its unit and its spread."""
    return text.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")


def sections(parts: Mapping[str, Sequence[Child]]) -> Iterator[Element]:
    """Yield a section for each part that has something in it."""
    for number, (title, content) in enumerate(parts.items(), start=1):
        if content:
            yield el("section", el("h2", title, id=f"part-{number}"), *content, aria_labelledby=f"part-{number}")


def contents(parts: Mapping[str, Sequence[Child]]) -> Element:
    """Return the links to the sections."""
    links = [el("a", title, href=f"#part-{n}") for n, (title, content) in enumerate(parts.items(), start=1) if content]
    return el("nav", *links, aria_label="Sections")


def figures_table(runs: Sequence[Shown], caption: str, *more: Sequence[str]) -> Element:
    """Return the figures of the terminal's comparison, and `more` lines."""
    head = ["", *(run.label for run in runs)]
    rows = [
        *comparison_rows([run.result.summary for run in runs]),
        ["state", *(run.result.state for run in runs)],
        *more,
    ]
    return table(caption, head, rows, first=True)


def _body(runs: Sequence[Shown], left_out: Mapping[str, str]) -> Iterator[Child]:
    dataset, model = runs[0].result.run
    parts = {
        "Figures": _figures(runs),
        "Accuracy": _accuracy(runs),
        "Accuracy by depth": _depth(runs),
        "Early exit": _exits([run for run in runs if run.saved.exits]),
        "Losses": _losses(runs),
        "Workers": _workers(runs),
        "Configuration": _configuration(runs),
        "Notes": _notes(runs, left_out),
        "Environment": _environment(runs),
    }
    newest = max(run.result.written for run in runs)
    yield el(
        "header",
        el("h1", f"{dataset}, {model}"),
        el("p", f"{listed([run.label for run in runs])}; results of {moment(newest)}", class_="under"),
        None if all(run.result.finished for run in runs) else el("p", "Not finished", class_="state"),
        contents(parts),
    )
    told = [el("p", unbroken(text), class_="main") for text in summary(runs)]
    told += [el("p", unbroken(text)) for text in remarks(runs) if text]
    if left_out:
        names = listed([f"{name} ({why})" for name, why in left_out.items()])
        told.append(el("p", f"Not shown, because it cannot be compared: {names}."))
    yield el("main", el("div", *told, class_="lead"), *sections(parts))
    yield _footer(runs)


def _figures(runs: Sequence[Shown]) -> list[Child]:
    several = any(run.repeated for run in runs)
    caption = (
        "Mean ± standard deviation over the turns" if several else f"One turn{' each' * (len(runs) > 1)}, so no spread"
    )
    # Beside each other where there is room for it.
    css = "figures" if len(runs) <= 2 else None
    text = "Test accuracy of each turn; vertical lines are the means." if several else "Test accuracy of the turn."
    turns = el("figure", turns_plot(runs), el("figcaption", text))
    found: list[Child] = [el("div", figures_table(runs, caption), turns, class_=css)]
    if several:
        rows = []
        for run in runs:
            summary, info = run.result.summary, run.result.info
            for number in range(summary.turns):
                cells = [f"{run.label}, turn {number + 1}", str(info.seeds[number]), str(summary.chosen_epoch[number])]
                cells += [f"{values[number]:.2f}" for values in (summary.test_acc, summary.final_test_acc)]
                rows.append([*cells, f"{summary.train_time[number]:,.1f}"])
        head = ["", "seed", "epoch chosen", "test accuracy (%)", "at the last epoch (%)", "training time (s)"]
        found.append(el("details", el("summary", "Every turn"), table("Every turn, at its chosen epoch", head, rows)))
    return found


def _accuracy(runs: Sequence[Shown]) -> list[Child]:
    several = any(run.repeated for run in runs)
    text = "Lines are means over the turns, and bands reach from the lowest turn to the highest. " if several else ""
    text += "Stars mark the epochs that were chosen on validation. Training time does not include evaluation."
    every = max(1, -(-max(len(run.table["epoch"].unique()) for run in runs) // ROWS))
    columns = (("val_acc", "validation"), ("test_acc", "test"))
    means = {(run.label, name): curve(run.table, "epoch", column)["y"] for run in runs for column, name in columns}
    epochs = sorted({int(epoch) for values in means.values() for epoch in values.index})[::every]
    rows = [[str(n), *(f"{v[n]:.2f}" if n in v.index else "–" for v in means.values())] for n in epochs]
    head = ["epoch", *(f"{label}, {name} (%)" for label, name in means)]
    caption = f"Accuracy by epoch{', mean over the turns' * several}{f', every {every} epochs' * (every > 1)}"
    return [
        methods_legend(runs, star=True),
        el("div", *accuracy_plots(runs), class_="figures"),
        el("p", text, class_="soft"),
        el("details", el("summary", "In numbers"), table(caption, head, rows)),
    ]


def _depth(runs: Sequence[Shown]) -> list[Child]:
    plots = depth_plots(runs)
    text = "Test accuracy with the first layers alone: every layer, with those before it, is a classifier."
    whole = [run.label for run in runs if not run.saved.depths]
    if whole:
        text += f" {listed(whole)}: all layers, for comparison."
    return [el("p", text, class_="soft"), methods_legend(runs), el("div", *plots, class_="figures")] if plots else []


def _exits(runs: Sequence[Shown]) -> list[Child]:
    if not runs:
        return []
    epochs = sorted({turn.epoch for run in runs for turn in run.saved.exits})
    weights = f"after epoch {listed([str(epoch) for epoch in epochs])}"
    text = (
        "A sample leaves at the first depth that is sure of it: where the probability of its class reaches a "
        "threshold. The curve goes through thresholds that are best on validation; accuracy and work are those on "
        "test, "
        f"with the weights {weights}. The dots are the fixed depths, at which all samples leave. Work is counted in "
        "floating-point operations, and that of all layers is 100 %; every exit that is tried counts."
    )
    tables = []
    for run in runs:
        layers = range(1, len(run.saved.depths) + 1)
        rows = [
            [
                f"{100 * one.budget:g} %",
                f"{100 * one.work:.1f}",
                f"{one.accuracy:.2f}",
                *(f"{100 * share:.1f}" for share in one.shares),
            ]
            for one in mean_budgets(run.saved.exits)
        ]
        caption = f"{run.label}: thresholds for a budget of work{', means over the turns' * run.repeated}"
        head = ["budget", "work (%)", "test accuracy (%)", *(f"leave at {number} (%)" for number in layers)]
        tables += [table(caption, head, rows)] if rows else []
    return [el("p", text, class_="soft"), methods_legend(runs), el("div", exits_plot(runs), class_="figures"), *tables]


def _losses(runs: Sequence[Shown]) -> list[Child]:
    text = "Each point is the mean over the batches of an epoch."
    if any("" not in run.result.info.losses for run in runs):
        text += " Layers go from dark (the first) to light (the last)."
    return [el("p", text, class_="soft"), el("div", *loss_plots(runs), class_="figures")]


def _workers(runs: Sequence[Shown]) -> list[Child]:
    found: list[Child] = []
    for run in runs:
        use, spans, layers = run.result.record.utilization, run.result.record.timeline, plan(run.result)
        parts: list[Child] = [*(usage(use) if use else []), layers, *(timeline(spans) if spans else [])]
        if any(part is not None for part in parts):
            found += [el("h3", run.label), *parts]
    return found


def _configuration(runs: Sequence[Shown]) -> list[Child]:
    configs = {run.label: flat(run.result.info.config) for run in runs}
    # What an objective has of its own is no difference between runs.
    own = [key for config in configs.values() for key in config if key.startswith(dotted(""))]
    differ = [key for key in differing(configs) if key not in own]
    but = " but the settings of their objectives" if own else ""
    if len(runs) == 1:
        text = None
    elif differ:
        text = f"The methods differ in {listed(differ)} (marked below), and in nothing else{but}."
    else:
        text = f"The same for all methods{but}."
    return [el("p", text) if text else None, facts(configs, expected=own)]


def _notes(runs: Sequence[Shown], left_out: Mapping[str, str]) -> list[Child]:
    notes: dict[str, list[str]] = {}
    for run in runs:
        resumed = run.result.record.resumptions
        more = [f"interrupted and resumed {counted(resumed, 'time')}"] if resumed else []
        for note in [*run.result.info.notes, *more]:
            notes.setdefault(note, []).append(run.label)
    items = [
        el("li", note if len(labels) == len(runs) else f"{listed(labels)}: {note}") for note, labels in notes.items()
    ]
    if len(items) <= NOTES + 2:
        return [el("ul", *items)] if items else []
    rest = el("details", el("summary", f"{len(items) - NOTES} more"), el("ul", *items[NOTES:]))
    return [el("ul", *items[:NOTES]), rest]


def _environment(runs: Sequence[Shown]) -> list[Child]:
    return [facts({run.label: _origin(run.result) for run in runs}, one=True, expected=EXPECTED)]


def _origin(result: Result) -> dict[str, Any]:
    """Return where a result comes from, by the names of the facts."""
    info, origin = result.info, result.info.provenance
    devices = [f"{layer} {device}" for layer, device in zip(info.losses, info.devices, strict=False)]
    if "" in info.losses or len(set(info.devices)) == 1:
        devices = list(dict.fromkeys(info.devices))
    found: dict[str, Any] = {
        "began": moment(result.began),
        "command": _command(origin.get("command")),
        "seeds": ", ".join(map(str, info.seeds)),
        "schedule": info.schedule,
        "threads": info.threads,
        "devices": ", ".join(devices),
    }
    names, versions = origin.get("device_names"), origin.get("versions")
    if isinstance(names, dict):
        found["processors"] = ", ".join(dict.fromkeys(str(name) for name in names.values() if name)) or None
    found |= {"cores": origin.get("cores"), "platform": origin.get("platform")}
    if isinstance(versions, dict):
        found["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    commit = origin.get("git_commit")
    changed = ", with uncommitted changes" if origin.get("git_dirty") else ""
    found |= {"CUDA": origin.get("cuda"), "commit": f"{commit}{changed}" if commit else None}
    return {name: value for name, value in found.items() if value is not None}


def _command(words: Any) -> str | None:
    return shlex.join(["python", *map(str, words)]) if isinstance(words, list) else None


def _footer(runs: Sequence[Shown]) -> Element:
    files: list[Child] = []
    for run in runs:
        for path in (run.result.csv, run.result.path):
            files += [el("a", path.name, href=f"./{quote(path.name, errors='surrogateescape')}"), ", "]
    return el(
        "footer",
        el("p", "Made from ", *files[:-1], ". ", el("a", "All runs of this folder", href="./index.html"), "."),
    )
