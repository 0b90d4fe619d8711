"""The pictures of a run: accuracy, losses, and accuracy by depth.

They are drawn from the files of each method alone, so they can be drawn again at any time. The global state of
matplotlib is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from data.storage.files import atomic_write

from ..config.load import method_title
from ..errors import UsageError, reason
from .curves import LEAST_RANGE, chosen, curve, loss_panels, spans_decades, turns
from .drawing import Axes, Figure, Line2D, MaxNLocator, colormaps, plain_settings, to_hex
from .exits import mean_budgets, mean_depths
from .look import BP, Style, styles
from .saved import Saved, load_saved

Results = dict[str, Saved]

#: Methods whose legend has room among the curves.
FEW = 4
#: Panels of losses beside each other.
IN_A_ROW = 4


@plain_settings()
def draw(out: Path, dataset: str, model: str, methods: Sequence[str] = ("al", "bp")) -> list[Path]:
    """Draw the pictures of `methods`, and of earlier results that can be compared with them; return the PNG files.

    Raises UsageError where a CSV file is not one of ours.
    """
    results = load_saved(out, dataset, model, methods)
    title = f"{dataset}, {model}"
    pictures = {"accuracy": _accuracy(results, title), "loss": _loss(results, title)} if results else {}
    if any(saved.depths for saved in results.values()):
        pictures["depth"] = _depth(results, title)
    if any(saved.exits for saved in results.values()):
        pictures["exits"] = _exits({name: saved for name, saved in results.items() if saved.exits}, title)
    return [_save(figure, out / f"{dataset}_{model}_{name}.png") for name, figure in pictures.items()]


def _accuracy(results: Results, title: str) -> Figure:
    """Draw test and validation accuracy against epochs and against training time."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True, sharex="col")
    style = styles(results)
    for row, (column, what) in enumerate((("test_acc", "Test"), ("val_acc", "Validation"))):
        for col, over in enumerate(("epoch", "train_time")):
            ax = axes[row][col]
            for method, saved in results.items():
                _curve(ax, saved.table, over, column, style[method])
            if column == "test_acc":
                for method, saved in results.items():
                    best = chosen(saved.table)
                    ax.plot(best[over], best[column], "*", color=style[method].color, ms=11, mec="black", mew=0.7)
        axes[row][0].set_ylabel(f"{what} accuracy (%)")
    axes[1][0].set_xlabel("Epoch")
    axes[1][1].set_xlabel("Training time (s)")
    axes[1][0].xaxis.set_major_locator(_whole_numbers())
    axes[1][1].set_xlim(left=0)
    star = Line2D(
        [], [], linestyle="", marker="*", color="white", mec="black", ms=11, label="epoch chosen on validation"
    )
    handles = [*_legend(results), star]
    if len(results) <= FEW:
        axes[0][0].legend(handles=handles, loc="best")
    else:  # it would hide the curves
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    _finish(figure, f"{title}: accuracy{_turns(results)}")
    return figure


def _loss(results: Results, title: str) -> Figure:
    """Draw a panel for every loss of every method, with a curve per layer."""
    panels = list(loss_panels(results))
    rows = -(-len(panels) // IN_A_ROW)
    wide = -(-len(panels) // rows)
    figure = Figure(figsize=(0.8 + 4.4 * wide, 4.4 * rows), layout="constrained")
    style = styles(results)
    axes = list(figure.subplots(rows, wide, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax, (method, columns, by_layer, name) in zip(axes, panels, strict=False):
        saved = results[method]
        for i, column in enumerate(columns):
            color = _layer_color(i, len(columns)) if by_layer else None
            _curve(ax, saved.table, "epoch", column, style[method], color, f"layer {i + 1}")
        if by_layer:
            _layer_legend(ax, len(columns))
        if spans_decades(saved.table[columns].to_numpy()):
            ax.set_yscale("log")
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(_whole_numbers())
    for ax in figure.axes[::wide]:
        ax.set_ylabel("Mean training loss of the epoch")
    _finish(figure, f"{title}: loss{_turns(results)}")
    return figure


def _depth(results: Results, title: str) -> Figure:
    """Draw the test accuracy of the first layers alone: at the chosen epoch, and for one method over the epochs."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    style = styles(results)
    local = {method: saved for method, saved in results.items() if saved.depths}
    for method, saved in local.items():
        at = chosen(saved.table)[saved.depths]
        mean = at.mean().to_numpy()
        reach = [mean - at.min().to_numpy(), at.max().to_numpy() - mean]
        color, line, marker = style[method]
        depths, caps, name = range(1, len(saved.depths) + 1), 4 if len(at) > 1 else 0, method_title(method)
        left.errorbar(depths, mean, reach, color=color, linestyle=line, marker=marker, capsize=caps, label=name)
    if "bp" in results:
        bp = chosen(results["bp"].table)["test_acc"]
        left.axhline(bp.mean(), color=BP.color, linestyle=BP.line, label="BP, all layers")
        if len(bp) > 1:
            left.axhspan(bp.min(), bp.max(), color=BP.color, alpha=0.22, linewidth=0)
    _widen(left)
    left.legend(fontsize=None if len(results) <= FEW else 8)
    left.set_title("At the epoch chosen on validation", fontsize=11)
    left.set_xlabel("Layers used for inference")
    left.set_ylabel("Test accuracy (%)")
    left.xaxis.set_major_locator(_whole_numbers())
    shown, saved = next(iter(local.items()))
    for i, column in enumerate(saved.depths):
        color, label = _layer_color(i, len(saved.depths)), f"{i + 1} layer{'s' if i else ''}"
        _curve(right, saved.table, "epoch", column, style[shown], color, label)
    _layer_legend(right, len(saved.depths))
    right.set_title("During training" if len(local) == 1 else f"{method_title(shown)} during training", fontsize=11)
    right.set_xlabel("Epoch")
    right.set_ylabel("Test accuracy (%)")
    right.xaxis.set_major_locator(_whole_numbers())
    names = [method_title(method) for method in local] if len(local) < FEW else [f"{len(local)} local methods"]
    _finish(figure, f"{title}: {' and '.join(names)}, accuracy by depth{_turns(local)}")
    return figure


def _exits(results: Results, title: str) -> Figure:
    """Draw test accuracy against work, with the fixed depths as markers, and what leaves where within budgets."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    style = styles(results)
    for method, saved in results.items():
        color, line, marker = style[method]
        for number, turn in enumerate(saved.exits):
            work, name = [100 * one.work for one in turn.curve], method_title(method) if number == 0 else None
            left.plot(work, [one.accuracy for one in turn.curve], color=color, linestyle=line, lw=1.6, label=name)
        fixed = mean_depths(saved.exits)
        mean = [fmean(accuracies) for _, accuracies in fixed]
        reach = [[m - min(a), max(a) - m] for m, (_, a) in zip(mean, fixed, strict=True)]
        caps = 4 if len(saved.exits) > 1 else 0
        left.errorbar(
            [100 * work for work, _ in fixed],
            mean,
            list(zip(*reach, strict=True)),
            color=color,
            linestyle="",
            marker=marker,
            capsize=caps,
            label=f"{method_title(method)}, fixed depth",
        )
    left.set_xlim(left=0)
    _widen(left)
    left.set_title("Thresholds chosen on validation", fontsize=11)
    left.set_xlabel("Work (% of the operations of all layers)")
    left.set_ylabel("Test accuracy (%)")
    left.legend()
    shown, saved = next(iter(results.items()))
    budgets = list(mean_budgets(saved.exits))
    bars = [f"{100 * one.budget:g} %" for one in budgets]
    below = [0.0] * len(budgets)
    depths = len(saved.depths)
    for depth in range(depths):
        shares = [100 * one.shares[depth] for one in budgets]
        label = f"depth {depth + 1}"
        right.barh(bars, shares, 0.6, below, color=_layer_color(depth, depths), label=label)
        below = [start + share for start, share in zip(below, shares, strict=True)]
    _layer_legend(right, depths, loc="upper center", ncols=min(depths, 4))
    right.set_xlim(0, 100)
    right.set_ylim(-0.5, len(budgets) + 0.25)  # room for the legend
    right.set_title(f"{method_title(shown)}: where test samples leave", fontsize=11)
    right.set_xlabel("Samples (%)")
    right.set_ylabel("Budget of work")
    count = max(len(saved.exits) for saved in results.values())
    _finish(figure, f"{title}: early exit{f' (a curve for each of {count} turns)' if count > 1 else ''}")
    return figure


def _curve(
    ax: Axes, table: pd.DataFrame, over: str, column: str, style: Style, color: str | None = None, label: str = ""
) -> None:
    """Draw the mean of `column` over the turns against the mean of `over`, with a band from least to most."""
    means = curve(table, over, column)
    size, color = 4 if len(means) <= 30 else 0, color or style.color
    ax.plot(means.x, means.y, color=color, linestyle=style.line, marker=style.marker, ms=size, lw=1.6, label=label)
    if table["turn"].nunique() > 1:
        ax.fill_between(means.x, means.low, means.high, color=color, alpha=0.22, linewidth=0)


def _layer_color(index: int, layers: int) -> str:
    """Return a color from dark (first layer) to light (last), which stays an order without color."""
    return to_hex(colormaps["viridis"](0.88 * index / max(1, layers - 1)))


def _widen(ax: Axes) -> None:
    """Have the axis of an accuracy span `LEAST_RANGE` at least."""
    low, high = ax.get_ylim()
    missing = max(0.0, LEAST_RANGE - (high - low)) / 2
    ax.set_ylim(low - missing, high + missing)


def _layer_legend(ax: Axes, layers: int, **place: Any) -> None:
    """Name the curves of the layers; of many, only about six."""
    handles, labels = ax.get_legend_handles_labels()
    step = max(1, -(-layers // 6))
    shown = sorted({*range(0, layers, step), layers - 1})
    ax.legend([handles[i] for i in shown], [labels[i] for i in shown], fontsize=9, **place)


def _legend(results: Results) -> list[Line2D]:
    style = styles(results)
    return [
        Line2D([], [], color=color, linestyle=line, marker=marker, ms=5, label=method_title(method))
        for method in results
        for color, line, marker in [style[method]]
    ]


def _turns(results: Results) -> str:
    """Say what line and band mean, where there are several turns."""
    count = turns(results)
    return f" (mean of {count} turns; spread: least to most)" if count > 1 else ""


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _finish(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=12)
    for ax in figure.axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    try:
        with atomic_write(path) as file:
            figure.savefig(file, format="png", backend="agg")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason(error)}); name another folder with --out") from None
    return path
