"""The pictures of a page: the turns, accuracy, accuracy by depth, and losses, as `pictures.py` draws them for files."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple
from xml.etree.ElementTree import Element

import pandas as pd

from ..columns import NUMBERED
from ..curves import LEAST_RANGE, Panel, chosen, curve, loss_panels, spans_decades
from ..exits import mean_depths
from ..look import Style
from ..results import Result
from ..saved import Saved
from .chart import Axes, Curve, Point, chart, key, legend, picture, shape
from .markup import el
from .scale import Scale, log_reach, reach
from .style import layer_class, method_class

#: Curves that a legend of layers names.
NAMED = 6
#: Characters of a run's name beside its turns.
LABEL = 24


class Shown(NamedTuple):
    """A method of a page, or a run among several."""

    label: str
    style: Style
    result: Result
    saved: Saved

    @property
    def css(self) -> str:
        """The class that has its color."""
        return method_class(self.style)

    @property
    def table(self) -> pd.DataFrame:
        """Its rows."""
        return self.saved.table

    @property
    def repeated(self) -> bool:
        """Whether there are several turns, and so a band."""
        return bool(self.table["turn"].nunique() > 1)


def methods_legend(runs: Sequence[Shown], *, star: bool = False) -> Element:
    """Return the legend of the methods."""
    entries = [(key(run.css, run.style.line, run.style.marker), run.label) for run in runs]
    return legend([*entries, (key("plain", "", "*"), "epoch chosen on validation")] if star else entries)


def turns_plot(runs: Sequence[Shown]) -> Element:
    """Return the test accuracy of every turn, a row per method, with the means."""
    names = [run.label if len(run.label) <= LABEL else f"…{run.label[1 - LABEL :]}" for run in runs]
    rows, width, left = 30, 480, 10 + 8 * max(8, *map(len, names))
    bottom = 14 + rows * len(runs)
    values = [value for run in runs for value in run.result.summary.test_acc]
    x = Scale(*reach(values, least=1.0, inside=(0, 100)), left, width - 20)
    parts: list[Element] = []
    for value, text in x.ticks(5):
        parts.append(el("path", d=f"M{x(value):g} 8V{bottom}", class_="grid"))
        parts.append(el("text", text, x=x(value), y=bottom + 16, text_anchor="middle"))
    parts.append(el("text", "test accuracy (%)", x=(left + width - 20) / 2, y=bottom + 34, text_anchor="middle"))
    for number, run in enumerate(runs):
        y, summary = 14 + rows * number + rows / 2 - 4, run.result.summary
        parts.append(el("text", names[number], x=left - 12, y=y + 4, text_anchor="end", class_="label"))
        mean = el("path", el("title", f"{run.label}: mean {summary.test_acc_mean:.2f} %"), class_=f"level {run.css}")
        mean.set("d", f"M{x(summary.test_acc_mean):g} {y - 10:g}v20")
        parts.append(mean)
        for turn, value in enumerate(summary.test_acc, start=1):
            dot = el("path", el("title", f"{run.label}, turn {turn}: {value:.2f} %"), class_=f"turn {run.css}")
            dot.set("d", shape(run.style.marker, x(value), y, 4.5))
            parts.append(dot)
    about = "Test accuracy of every turn: " + "; ".join(
        f"{run.label} {', '.join(f'{value:.2f}' for value in run.result.summary.test_acc)} %" for run in runs
    )
    return picture(about, width, bottom + 42, *parts, class_="chart")


def accuracy_plots(runs: Sequence[Shown]) -> list[Element]:
    """Return test and validation accuracy against epochs and against training time."""
    kinds = (("test_acc", "Test accuracy (%)"), ("val_acc", "Validation accuracy (%)"))
    values = [value for run in runs for column, _ in kinds for value in run.table[column]]
    y_range = reach(values, least=1.0, inside=(0, 100))
    plots = []
    for column, name in kinds:
        for over, x_name in (("epoch", "Epoch"), ("train_time", "Training time (s)")):
            curves = [
                Curve(
                    run.label,
                    run.css,
                    _points(run.table, over, column),
                    run.style.line,
                    run.style.marker,
                    run.repeated,
                    _stars(run, over) if column == "test_acc" else (),
                )
                for run in runs
            ]
            what = f"{name} by {'epoch' if over == 'epoch' else 'training time'}"
            plots.append(_plot(what, x_name, curves, y_range, unit=" %", whole=over == "epoch"))
    return plots


def depth_plots(runs: Sequence[Shown]) -> list[Element]:
    """Return the accuracy with the first layers alone: at the chosen epoch, and over the epochs for each method."""
    local = [run for run in runs if run.saved.depths]
    if not local:
        return []
    curves = []
    for run in local:
        at = chosen(run.table)[run.saved.depths]
        points = [
            Point(number, float(at[column].mean()), float(at[column].min()), float(at[column].max()))
            for number, column in enumerate(run.saved.depths, start=1)
        ]
        curves.append(Curve(run.label, run.css, points, run.style.line, run.style.marker, len(at) > 1))
    longest = max(len(curve.points) for curve in curves)
    for run in runs:
        if not run.saved.depths:  # a method without depths is a level to compare with
            at = chosen(run.table)["test_acc"]
            level = (float(at.mean()), float(at.min()), float(at.max()))
            ends = sorted({1, longest})
            points = [Point(end, *level) for end in ends] if longest > 1 else [Point(1, *level)]
            curves.append(Curve(f"{run.label}, all layers", run.css, points, run.style.line, "", len(at) > 1))
    y_range = reach(_extent(curves), least=LEAST_RANGE, inside=(0, 100))
    name, x_name = "Test accuracy (%) at the chosen epoch", "Layers used for inference"
    plots = [_plot(name, x_name, curves, y_range, unit=" %", whole=True)]
    for run in local:
        columns = run.saved.depths
        curves = [
            Curve(
                f"{number + 1} layer{'s' if number else ''}",
                layer_class(number, len(columns)),
                _points(run.table, "epoch", column),
                run.style.line,
                band=run.repeated,
            )
            for number, column in enumerate(columns)
        ]
        y_range = reach(_extent(curves), least=LEAST_RANGE, inside=(0, 100))
        name = f"{run.label}: test accuracy (%) by epoch"
        plot = _plot(name, "Epoch", curves, y_range, unit=" %", whole=True)
        plots.append(_with_legend(plot, curves))
    return plots


def exits_plot(runs: Sequence[Shown]) -> Element:
    """Return the test accuracy against work: a curve for every turn, and the fixed depths, which are dots."""
    curves = []
    for run in runs:
        for turn in run.saved.exits:
            name = f"{run.label}, turn {turn.turn}" if run.repeated else run.label
            points = [Point(100 * one.work, *[one.accuracy] * 3) for one in turn.curve]
            curves.append(Curve(name, run.css, points, run.style.line))
        fixed = [
            Point(100 * work, fmean(accuracies), min(accuracies), max(accuracies))
            for work, accuracies in mean_depths(run.saved.exits)
        ]
        curves.append(Curve(f"{run.label}, fixed depth", run.css, fixed, "", run.style.marker, run.repeated))
    y_range = reach(_extent(curves), least=LEAST_RANGE, inside=(0, 100))
    name, x_name = "Test accuracy (%) with early exit", "Work (% of all layers)"
    return _plot(name, x_name, curves, y_range, unit=" %", place=lambda _, work: f"{work:.1f} % of the work")


def loss_plots(runs: Sequence[Shown]) -> list[Element]:
    """Return a picture for every loss of every method, with a curve per layer."""
    by_method = {run.result.method: run for run in runs}
    return [_loss(by_method[panel.method], panel) for panel in loss_panels({n: r.saved for n, r in by_method.items()})]


def _loss(run: Shown, panel: Panel) -> Element:
    layers = list(run.result.info.losses)
    curves = []
    for number, column in enumerate(panel.columns):
        match = NUMBERED.fullmatch(column)
        layer = int(match["number"]) if match and panel.by_layer else 0
        name = layers[layer - 1] if 0 < layer <= len(layers) else f"layer {layer}" if layer else run.label
        css = layer_class(number, len(panel.columns)) if panel.by_layer else run.css
        points = _points(run.table, "epoch", column)
        curves.append(Curve(name, css, points, run.style.line, band=run.repeated))
    log = spans_decades(run.table[panel.columns].to_numpy())
    y_range = (log_reach if log else reach)(_extent(curves))
    plot = _plot(f"{panel.title}{', logarithmic' * log}", "Epoch", curves, y_range, log=log, whole=True)
    return _with_legend(plot, curves) if panel.by_layer else plot


def _plot(
    name: str,
    x_name: str,
    curves: Sequence[Curve],
    y_range: tuple[float, float],
    *,
    unit: str = "",
    log: bool = False,
    whole: bool = False,
    place: Callable[[int, float], str] = "epoch {}, {:,.1f} s".format,
) -> Element:
    """Return a figure of these curves; who cannot see it is told how they end."""
    told = ("{:.2f}" if unit else "{:.4g}").format
    # A star is that of one turn, which may have taken longer than the mean.
    xs = [x for curve in curves for x in (*(point.x for point in curve.points), *(star[0] for star in curve.stars))]
    least, most = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if whole and least == most:
        x_range = (least - 0.5, most + 0.5)
    else:
        # A little room, so that the first and the last marker are seen whole.
        room = 0.02 * (most - least if whole else most)
        x_range = (least - room if whole else 0.0, (most + room) or 1.0)
    ends = [f"{curve.name} ends at {told(last)}{unit}" for curve in curves if (last := _last(curve)) is not None]
    about = f"{name}: line chart over {x_name.lower()}. {'; '.join(ends[:12])}"
    axes = Axes(name, about, x_name, x_range, y_range, log, whole, told, unit, place)
    return el("figure", chart(axes, curves))


def _with_legend(figure: Element, curves: Sequence[Curve]) -> Element:
    """Add a legend of the layers; of many, only about six are named."""
    every = max(1, math.ceil(len(curves) / NAMED))
    shown = sorted({*range(0, len(curves), every), len(curves) - 1})
    names = [(key(curves[number].css, curves[number].line), curves[number].name) for number in shown]
    figure.append(el("figcaption", legend(names)))
    return figure


def _points(table: pd.DataFrame, over: str, column: str) -> list[Point]:
    means = curve(table, over, column)
    return [Point(*row) for row in means[["x", "y", "low", "high"]].astype(float).itertuples(index=False)]


def _stars(run: Shown, over: str) -> list[tuple[float, float, str]]:
    return [(float(row[over]), float(row["test_acc"]), _told(run, row)) for row in chosen(run.table).to_dict("records")]


def _told(run: Shown, row: Mapping[Hashable, float]) -> str:
    return f"{run.label}, turn {row['turn']:.0f}: epoch {row['epoch']:.0f} chosen, test {row['test_acc']:.2f} %"


def _extent(curves: Iterable[Curve]) -> list[float]:
    return [value for curve in curves for point in curve.points for value in (point.y, point.low, point.high)]


def _last(curve: Curve) -> float | None:
    return next((point.y for point in reversed(curve.points) if math.isfinite(point.y)), None)
