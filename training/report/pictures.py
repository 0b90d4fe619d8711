"""Pictures of a run and the table that compares its methods.

The pictures are drawn from the CSV files alone, so they can be drawn again at any time. Colors are Okabe and
Ito's, which color-blind readers can tell apart; the methods differ in line style as well. No global state of
matplotlib is touched.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..config.schema import Method
from ..errors import UsageError, reason
from .results import columns, csv_path

STYLE: dict[Method, tuple[str, Literal["-", "--"], str]] = {"al": ("#0072B2", "-", "o"), "bp": ("#D55E00", "--", "s")}
"""Color, line and marker of each method."""
LEAST_RANGE = 5.0
"""Percentage points that the axis of accuracy by depth spans at least."""
Tables = dict[Method, pd.DataFrame]


def draw(out: Path, dataset: str, model: str, methods: Collection[Method] = ("al", "bp")) -> list[Path]:
    """Draw the pictures of `dataset` and `model` from the CSV files of `methods` in `out`; return the PNG files.

    Raises `UsageError` where a CSV file is not one of ours.
    """
    tables: Tables = {}
    for method in (method for method in STYLE if method in methods):
        path = csv_path(out, dataset, model, method)
        if path.exists():
            tables[method] = _read(path, method)
    title = f"{dataset}, {model}"
    pictures = {"accuracy": _accuracy(tables, title), "loss": _loss(tables, title)} if tables else {}
    if "al" in tables:
        pictures["depth"] = _depth(tables, title)
    return [_save(figure, out / f"{dataset}_{model}_{name}.png") for name, figure in pictures.items()]


def _read(path: Path, method: Method) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
        layers = sum(name.startswith("assoc_loss_") for name in table.columns)
        if list(table.columns) != columns(method, layers):
            raise ValueError("other columns than expected")
        if table.empty or table["val_acc"].isna().any():
            raise ValueError("no epochs, or gaps in them")
        checked: pd.DataFrame = table.astype(float).astype({"turn": int, "epoch": int})
        return checked
    except (ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{path}: is no file of results ({first}); move it away and run again") from None


def _accuracy(tables: Tables, title: str) -> Figure:
    """Draw test and validation accuracy against epochs and against training time."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True, sharex="col")
    for row, (column, what) in enumerate((("test_acc", "Test"), ("val_acc", "Validation"))):
        for col, over in enumerate(("epoch", "train_time")):
            ax = axes[row][col]
            for method, table in tables.items():
                _curve(ax, table, over, column, method)
            if column == "test_acc":
                for method, table in tables.items():
                    chosen = _chosen(table)
                    ax.plot(chosen[over], chosen[column], "*", color=STYLE[method][0], ms=11, mec="black", mew=0.7)
        axes[row][0].set_ylabel(f"{what} accuracy (%)")
    axes[1][0].set_xlabel("Epoch")
    axes[1][1].set_xlabel("Training time (s)")
    axes[1][0].xaxis.set_major_locator(_whole_numbers())
    axes[1][1].set_xlim(left=0)
    star = Line2D(
        [], [], linestyle="", marker="*", color="white", mec="black", ms=11, label="epoch chosen on validation"
    )
    axes[0][0].legend(handles=[*_legend(tables), star], loc="best")
    _finish(figure, f"{title}: accuracy{_turns(tables)}")
    return figure


def _loss(tables: Tables, title: str) -> Figure:
    """Draw the losses of each AL layer, and BP's loss."""
    panels: list[tuple[Method, str, str]] = []
    if "al" in tables:
        panels += [("al", "assoc_loss_", "AL: associated loss"), ("al", "ae_loss_", "AL: auto-encoder loss")]
    if "bp" in tables:
        panels += [("bp", "loss", "BP: loss")]
    figure = Figure(figsize=(0.8 + 4.4 * len(panels), 4.4), layout="constrained")
    for ax, (method, prefix, name) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        table = tables[method]
        names = [column for column in table.columns if column.startswith(prefix)]
        for i, column in enumerate(names):
            color = _layer_color(i, len(names)) if method == "al" else STYLE["bp"][0]
            _curve(ax, table, "epoch", column, method, color, f"layer {i + 1}")
        if method == "al":
            _layer_legend(ax, len(names))
        values = table[names].to_numpy()
        positive = values[values > 0]
        if positive.size and (values > 0).all() and positive.max() > 20 * positive.min():
            ax.set_yscale("log")
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(_whole_numbers())
    figure.axes[0].set_ylabel("Mean training loss of the epoch")
    _finish(figure, f"{title}: loss{_turns({m: tables[m] for m, _, _ in panels})}")
    return figure


def _depth(tables: Tables, title: str) -> Figure:
    """Draw the test accuracy of AL's shortcuts: at the chosen epoch, and over the epochs."""
    table = tables["al"]
    names = [column for column in table.columns if column.startswith("test_acc_depth_")]
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    depths = list(range(1, len(names) + 1))
    at = _chosen(table)[names]
    mean = at.mean().to_numpy()
    reach = [mean - at.min().to_numpy(), at.max().to_numpy() - mean]
    color, line, marker = STYLE["al"]
    caps = 4 if len(at) > 1 else 0
    left.errorbar(depths, mean, reach, color=color, linestyle=line, marker=marker, capsize=caps, label="AL")
    if "bp" in tables:
        bp = _chosen(tables["bp"])["test_acc"]
        left.axhline(bp.mean(), color=STYLE["bp"][0], linestyle=STYLE["bp"][1], label="BP, all layers")
        if len(bp) > 1:
            left.axhspan(bp.min(), bp.max(), color=STYLE["bp"][0], alpha=0.22, linewidth=0)
    # A narrow range would make a few samples look like a collapse.
    low, high = left.get_ylim()
    missing = max(0.0, LEAST_RANGE - (high - low)) / 2
    left.set_ylim(low - missing, high + missing)
    left.legend()
    left.set_title("At the epoch chosen on validation", fontsize=11)
    left.set_xlabel("Layers used for inference")
    left.set_ylabel("Test accuracy (%)")
    left.xaxis.set_major_locator(_whole_numbers())
    for i, column in enumerate(names):
        _curve(right, table, "epoch", column, "al", _layer_color(i, len(names)), f"{i + 1} layer{'s' if i else ''}")
    _layer_legend(right, len(names))
    right.set_title("During training", fontsize=11)
    right.set_xlabel("Epoch")
    right.set_ylabel("Test accuracy (%)")
    right.xaxis.set_major_locator(_whole_numbers())
    _finish(figure, f"{title}: AL's accuracy by depth{_turns({'al': table})}")
    return figure


def _curve(
    ax: Axes, table: pd.DataFrame, over: str, column: str, method: Method, color: str | None = None, label: str = ""
) -> None:
    """Draw the mean of `column` over the turns against the mean of `over`, with a band from least to most."""
    own, line, marker = STYLE[method]
    epochs = table.groupby("epoch")
    x, y = epochs[over].mean() if over != "epoch" else epochs["epoch"].first(), epochs[column]
    size = 4 if len(x) <= 30 else 0
    ax.plot(x, y.mean(), color=color or own, linestyle=line, marker=marker, ms=size, lw=1.6, label=label)
    if table["turn"].nunique() > 1:
        ax.fill_between(x, y.min(), y.max(), color=color or own, alpha=0.22, linewidth=0)


def _chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each turn whose validation accuracy is best, the first of equals."""
    rows: pd.DataFrame = table.loc[table.groupby("turn")["val_acc"].idxmax()]
    return rows


def _layer_color(index: int, layers: int) -> str:
    """Return a color from dark (first layer) to light (last), ordered for every kind of sight."""
    return to_hex(colormaps["viridis"](0.88 * index / max(1, layers - 1)))


def _layer_legend(ax: Axes, layers: int) -> None:
    """Name the layers' lines; of many, only about six."""
    handles, labels = ax.get_legend_handles_labels()
    step = max(1, -(-layers // 6))
    shown = sorted({*range(0, layers, step), layers - 1})
    ax.legend([handles[i] for i in shown], [labels[i] for i in shown], fontsize=9)


def _legend(tables: Tables) -> list[Line2D]:
    return [
        Line2D([], [], color=color, linestyle=line, marker=marker, ms=5, label=method.upper())
        for method, (color, line, marker) in STYLE.items()
        if method in tables
    ]


def _turns(tables: Tables) -> str:
    """Say what line and band mean, where there are several turns."""
    turns = max(table["turn"].nunique() for table in tables.values())
    return f" (mean of {turns} turns; spread: least to most)" if turns > 1 else ""


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _finish(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=12)
    for ax in figure.axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    try:
        figure.savefig(path, format="png", backend="agg")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason(error)}); name another folder with --out") from None
    return path
