"""Results as they are on disk: what the pictures of a command show, of this one and of earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config.earlier import in_todays_keys
from ..config.load import method_order
from ..config.objectives import OBJECTIVES
from ..config.schema import RESUME_MAY_CHANGE
from ..errors import UsageError
from .columns import COMMON, DEPTH, NUMBERED
from .exits import TurnExits, read_exits
from .output import csv_path, json_path


@dataclass(frozen=True)
class Saved:
    """A method's rows, and how its losses are called where that is not their name."""

    table: pd.DataFrame
    titles: Mapping[str, str]
    exits: Sequence[TurnExits] = ()
    """What is known of the turns about early exit."""

    @property
    def loss_kinds(self) -> dict[str, list[str]]:
        """The columns of each loss, first layer to last."""
        kinds: dict[str, list[str]] = {}
        for column in self.table.columns[len(COMMON) :]:
            match = NUMBERED.fullmatch(column)
            kind = match["kind"] if match else column
            if kind != DEPTH:
                kinds.setdefault(kind, []).append(column)
        return kinds

    def absent(self, columns: Sequence[str]) -> np.ndarray:
        """Return, by row and column, whether the stack did not have the column's layer yet."""
        absent = np.zeros((len(self.table), len(columns)), dtype=bool)
        for place, column in enumerate(columns):
            match = NUMBERED.fullmatch(column)
            if match and (depth := f"{DEPTH}_{match['number']}") in self.table:
                absent[:, place] = self.table[depth].isna()
        return absent

    @property
    def depths(self) -> list[str]:
        """The columns of the accuracy by depth, of a method that has it."""
        return [column for column in self.table.columns if column.startswith(f"{DEPTH}_")]


def load_saved(out: Path, dataset: str, model: str, methods: Sequence[str]) -> dict[str, Saved]:
    """Return the results of `methods` and of others that can be compared with them, by method; AL and BP come first.

    Methods without a CSV are left out. Raises UsageError for a CSV that is not one of ours.
    """
    infos = {method: _info(json_path(out, dataset, model, method)) for method in methods}
    for path in sorted(out.glob(escape(f"{dataset}_{model}_") + "*.json")):
        info = _info(path)
        method = str(info.get("method"))
        another = method not in infos and path == json_path(out, dataset, model, method)
        if another and any(comparable(info, own) for own in infos.values()):
            infos[method] = info
    found = {}
    for method in sorted(infos, key=method_order):
        path = csv_path(out, dataset, model, method)
        if path.exists():
            titles = infos[method].get("loss_titles")
            exits = read_exits(infos[method].get("early_exit"))
            found[method] = Saved(read_table(path), titles if isinstance(titles, dict) else {}, exits)
    return found


def _info(path: Path) -> dict[str, Any]:
    """Return what the JSON holds; nothing where it is not there or not ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def comparable(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Tell whether two methods were run with the same config and seeds, devices and speed aside.

    What each objective has of its own is no difference between runs: the objectives are what is compared.
    """

    def essence(info: Mapping[str, Any]) -> Any:
        config = info.get("config")
        if not isinstance(config, dict):
            return None
        passed_over = {*RESUME_MAY_CHANGE, OBJECTIVES}
        return {k: v for k, v in in_todays_keys(config).items() if k not in passed_over}, info.get("seeds")

    return essence(one) is not None and bool(essence(one) == essence(two))


def read_table(path: Path) -> pd.DataFrame:
    """Return the rows of a CSV. Raises UsageError where it is not one of ours."""
    try:
        table = pd.read_csv(path)
        if tuple(table.columns[: len(COMMON)]) != COMMON or len(table.columns) == len(COMMON):
            raise ValueError("other columns than expected")
        if table.empty or table["val_acc"].isna().any():
            raise ValueError("no epochs, or gaps in them")
        checked: pd.DataFrame = table.astype(float).astype({"turn": int, "epoch": int})
        return checked
    except (ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{path}: is not a file of results ({first}); move it away and run again") from None
