"""What pictures and pages show of a method's rows: means over the turns, the chosen epochs, the panels of losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config.load import method_title
from .columns import DEPTH, loss_of
from .saved import Saved

#: Points that an axis of accuracy by depth spans at least: on a narrow one, a few samples would look like a collapse.
LEAST_RANGE = 5.0


class Panel(NamedTuple):
    """A loss of a method: its columns, first layer to last, and what it is called."""

    method: str
    columns: list[str]
    by_layer: bool
    title: str


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each turn whose validation accuracy is best, the first of equals, as `summary` does."""
    depths = table.filter(regex=f"^{DEPTH}_").notna().sum(axis=1)
    whole = table[depths == depths.groupby(table["turn"]).transform("max")]
    rows: pd.DataFrame = table.loc[whole.groupby("turn")["val_acc"].idxmax()]
    return rows


def curve(table: pd.DataFrame, over: str, column: str) -> pd.DataFrame:
    """Return, by epoch, the mean `x` of `over`, and of `column` the mean `y`, `low` and `high` over the turns."""
    epochs = table.groupby("epoch")
    x, y = epochs[over].mean() if over != "epoch" else epochs["epoch"].first(), epochs[column]
    means: pd.DataFrame = pd.DataFrame({"x": x, "y": y.mean(), "low": y.min(), "high": y.max(), "turns": y.count()})
    return means


def turns(results: Mapping[str, Saved]) -> int:
    """Return the largest number of turns of a method."""
    return max(saved.table["turn"].nunique() for saved in results.values())


def loss_panels(results: Mapping[str, Saved]) -> Iterator[Panel]:
    """Yield a panel for every loss of every method."""
    for method, saved in results.items():
        for kind, columns in saved.loss_kinds.items():
            loss = loss_of(kind)
            title = f"{method_title(method)}: {saved.titles.get(loss, loss)}"
            yield Panel(method, columns, columns != [kind], title)


def spans_decades(values: np.ndarray) -> bool:
    """Tell whether losses are better drawn on a logarithmic axis."""
    values = values[~np.isnan(values)]  # of layers that the stack had not yet
    positive = values[values > 0]
    return bool(positive.size and (values > 0).all() and positive.max() > 20 * positive.min())
