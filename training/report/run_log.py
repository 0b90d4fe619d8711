"""What a method's run leaves behind: a CSV with one row per epoch, and a JSON with everything else.

Both are written after every epoch, each by replacing the file as a whole, so that an interrupted run leaves the epochs
that it has done and never half a file. A log knows nothing of other methods.

Accuracies are in percent, times in seconds, memory in MB (10**6 bytes).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from .columns import DEPTH, columns, loss_columns
from .output import csv_path, json_path, replace_text
from .run_info import RunInfo
from .summary import MethodSummary, best_epoch, depths, summary


class RunLog:
    """The rows of one method on one data set and model; `add` after each epoch writes both files.

    The files of an earlier run of the method are replaced by the first `add`.
    """

    def __init__(self, out: Path, dataset: str, model: str, method: str, info: RunInfo) -> None:
        self.dataset, self.model, self.method, self.info = dataset, model, method, info
        self.csv_path = csv_path(out, dataset, model, method)
        self.json_path = json_path(out, dataset, model, method)
        self.columns = columns(info.losses)
        self.rows: list[dict[str, Any]] = []
        #: By number: what is known of a turn only when it ends.
        self.turns: dict[int, dict[str, Any]] = {}
        #: How the workers spent the last finished turn.
        self.utilization: dict[str, Any] | None = None
        #: What the workers did when, of a run that was traced; for the report.
        self.timeline: dict[str, Any] | None = None
        self.notes = list(info.notes)
        #: How often the run was interrupted and resumed; its times and its memory are those of its parts.
        self.resumptions = 0

    def add(
        self,
        turn: int,
        epoch: int,
        *,
        train_acc: float,
        val_acc: float,
        test_acc: Sequence[float],
        train_time: float,
        losses: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Record an epoch.

        `test_acc`: at every depth that there is, the full depth last. `train_time`: cumulative in the turn. `losses`:
        the means by layer and name. A layer that the stack does not have yet leaves its columns empty. Raises
        ValueError where the figures are not those of the method, UsageError where writing fails.
        """
        row: dict[str, Any] = {"turn": turn, "epoch": epoch}
        accuracies = {"train_acc": train_acc, "val_acc": val_acc, "test_acc": test_acc[-1]}
        row |= {name: percent(value) for name, value in accuracies.items()}
        row["train_time"] = round(float(train_time), 4)
        given = {layer: list(values) for layer, values in losses.items()}
        for column, layer, loss in loss_columns(given):
            row[column] = float(f"{losses[layer][loss]:.6g}")
        if "" not in self.info.losses:  # a network with one loss has one depth
            row |= {f"{DEPTH}_{number}": percent(value) for number, value in enumerate(test_acc, 1)}
        expected = columns(dict(islice(self.info.losses.items(), max(1, len(losses)))))
        if set(row) != set(expected):
            wrong = ", ".join(sorted(set(row) ^ set(expected)))
            raise ValueError(f"{self.method} with {len(losses)} layers: missing or not expected: {wrong}")
        self.rows.append({column: row.get(column) for column in self.columns})
        self.write()

    def is_best(self, turn: int, val_acc: float) -> bool:
        """Tell whether an epoch of all layers, not yet recorded, is the turn's best so far with this accuracy."""
        measured = {f"{DEPTH}_{number}": 0.0 for number in range(1, self._whole + 1)}
        row = {"val_acc": percent(val_acc), **measured}
        return best_epoch([*(row for row in self.rows if row["turn"] == turn), row]) is row

    def chosen_epochs(self) -> dict[int, int]:
        """Return the best epoch on validation by turn, of those of all layers that have been recorded."""
        whole = [row for row in self.rows if depths(row) == self._whole]
        turns = dict.fromkeys(row["turn"] for row in whole)
        return {turn: best_epoch([row for row in whole if row["turn"] == turn])["epoch"] for turn in turns}

    @property
    def _whole(self) -> int:
        """How many depths are recorded of all layers."""
        return 0 if "" in self.info.losses else len(self.info.losses)

    def finish_turn(
        self,
        turn: int,
        *,
        peak_memory_mb: float | None = None,
        utilization: dict[str, Any] | None = None,
        early_exit: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Record what is known of a turn only when it ends. Notes go to the method's, each once."""
        self.turns[turn] = {"peak_memory_mb": None if peak_memory_mb is None else round(peak_memory_mb, 1)}
        if early_exit is not None:
            self.turns[turn]["early_exit"] = early_exit
        self.utilization = utilization
        self.notes.extend(note for note in notes if note not in self.notes)
        self.write()

    def state(self) -> dict[str, Any]:
        """Return what has been recorded, for a checkpoint."""
        return {
            "rows": [dict(row) for row in self.rows],
            "turns": dict(self.turns),
            "utilization": self.utilization,
            "timeline": self.timeline,
            "notes": list(self.notes),
            "resumptions": self.resumptions,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what an earlier process had recorded of the run."""
        self.rows = list(state["rows"])
        self.turns = {int(turn): facts for turn, facts in state["turns"].items()}
        self.utilization = state["utilization"]
        self.timeline = state.get("timeline")
        self.notes.extend(note for note in state["notes"] if note not in self.notes)
        self.resumptions = state["resumptions"]

    def summary(self) -> MethodSummary | None:
        """Return the figures of the turns so far, an unfinished one included; None before the first epoch."""
        return summary(self.method, self.info, self.rows, self.turns) if self.rows else None

    def write(self) -> None:
        """Write both files. Raises UsageError."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        replace_text(self.csv_path, table.getvalue())
        replace_text(self.json_path, json.dumps(_finite(self._content()), indent=2, allow_nan=False) + "\n")

    def _content(self) -> dict[str, Any]:
        last = {row["turn"]: row for row in self.rows}
        figures = self.summary()
        exits = [facts["early_exit"] for facts in self.turns.values() if "early_exit" in facts]
        return {
            "dataset": self.dataset,
            "model": self.model,
            "method": self.method,
            **(asdict(figures) if figures else {}),
            "epochs_done": [row["epoch"] for row in last.values()],
            "final_epoch": list(last.values()),
            "turns_finished": len(self.turns),
            **self.info.to_json(),
            "utilization": self.utilization,
            "resumptions": self.resumptions,
            "notes": self.notes,
            **({"early_exit": exits} if exits else {}),
            **({"timeline": self.timeline} if self.timeline else {}),
        }


def percent(value: float) -> float:
    """Return an accuracy as it is recorded."""
    return round(float(value), 4)


def _finite(value: Any) -> Any:
    """Return `value` with null for NaN and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
