"""What a run leaves behind: a CSV per method with one row per epoch, and a JSON with everything else.

Both are written after every epoch, each by replacing the file as a whole, so that an interrupted run leaves the
epochs it has done and never half a file. The epoch that is reported is the one with the best accuracy on
validation; test is never used to choose.

Accuracies are in percent, times in seconds, memory in MB (10**6 bytes).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.storage.files import atomic_write_text, check_writable, exclusive_lock, remove_stale

from ..config.paths import user_path
from ..config.schema import SAME_NUMBERS, Method
from ..errors import UsageError, reason

COMMON = ("turn", "epoch", "train_acc", "val_acc", "test_acc", "train_time")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a method's run before it starts; it goes into the JSON as it is."""

    config: dict[str, Any]
    """The resolved configuration."""
    seeds: list[int]
    """The seed of each turn."""
    train_samples: int
    """Samples that one epoch trains on."""
    parameters_training: int
    """Weights that are trained."""
    parameters_inference: int
    """Weights that the full inference path uses."""
    threads: int
    """Intra-op threads of a worker."""
    schedule: str | None
    """None for BP, which has no choice."""
    devices: list[str]
    """The device of each layer."""
    plan: dict[str, Any] | None = None
    """The measured cost of each layer and the cut that follows, as `ALPackage.placement.Plan` tells them."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions, platform and commit, as `training.provenance.collect` returns them."""
    notes: list[str] = field(default_factory=list)
    """What the reader of the figures should know, one line each."""


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """The figures of a method over its turns, each at the epoch chosen on validation."""

    method: Method
    turns: int
    chosen_epoch: list[int]
    test_acc: list[float]
    test_acc_mean: float
    test_acc_std: float | None
    """Sample standard deviation over the turns; None for a single turn."""
    final_test_acc: list[float]
    """At the last epoch of each turn."""
    train_time: list[float]
    samples_per_s: float | None
    """Training samples over training time, all turns together; None where no time was measured."""
    parameters_training: int
    parameters_inference: int
    peak_memory_mb: float | None
    """The largest of the turns; None where it was not measured."""


class Results:
    """The results of one method on one data set and model; `add` after each epoch writes both files.

    The old files of the same method are replaced by the first `add`; the other method's part of the JSON is kept.
    `notices` holds what the user should be told about the files themselves.
    """

    def __init__(self, out: Path, dataset: str, model: str, method: Method, layers: int, facts: Facts) -> None:
        self.dataset, self.model, self.method, self.layers, self.facts = dataset, model, method, layers, facts
        self.csv_path = csv_path(out, dataset, model, method)
        self.json_path = json_path(out, dataset, model)
        self.columns = columns(method, layers)
        self.rows: list[dict[str, Any]] = []
        self.turns: dict[int, dict[str, Any]] = {}
        self.utilization: dict[str, Any] | None = None
        """How the workers spent the last finished turn."""
        self.notes = list(facts.notes)
        self.resumptions = 0
        """How often the run was interrupted and gone on with; its times and its memory are those of its parts."""
        self.notices: list[str] = []
        self._other_methods()

    def add(
        self,
        turn: int,
        epoch: int,
        *,
        train_acc: float,
        val_acc: float,
        test_acc: float,
        train_time: float,
        loss: float | None = None,
        assoc_loss: list[float] | None = None,
        ae_loss: list[float] | None = None,
        test_acc_depth: list[float] | None = None,
    ) -> None:
        """Record an epoch. `train_time` is cumulative in the turn; the lists hold one number per layer (AL).

        Raises `ValueError` where the figures are not those of the method, `UsageError` where writing fails.
        """
        row: dict[str, Any] = {"turn": turn, "epoch": epoch}
        accuracies = {"train_acc": train_acc, "val_acc": val_acc, "test_acc": test_acc}
        row |= {name: round(float(value), 4) for name, value in accuracies.items()}
        row["train_time"] = round(float(train_time), 4)
        if loss is not None:
            row["loss"] = float(f"{loss:.6g}")
        for name, values in (("assoc_loss", assoc_loss), ("ae_loss", ae_loss)):
            row |= {f"{name}_{i}": float(f"{value:.6g}") for i, value in enumerate(values or [], 1)}
        row |= {f"test_acc_depth_{i}": round(float(value), 4) for i, value in enumerate(test_acc_depth or [], 1)}
        if set(row) != set(self.columns):
            wrong = sorted(set(row) ^ set(self.columns))
            raise ValueError(f"{self.method} with {self.layers} layers: missing or not expected: {', '.join(wrong)}")
        self.rows.append(row)
        self.write()

    def finish_turn(
        self,
        turn: int,
        *,
        peak_memory_mb: float | None = None,
        utilization: dict[str, Any] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        """Record what is known of a turn only when it ends. Notes go to the method's, each once."""
        self.turns[turn] = {"peak_memory_mb": None if peak_memory_mb is None else round(peak_memory_mb, 1)}
        self.utilization = utilization
        self.notes.extend(note for note in notes or [] if note not in self.notes)
        self.write()

    def memory(self) -> dict[str, Any]:
        """Return what has been recorded, for a checkpoint."""
        return {
            "rows": [dict(row) for row in self.rows],
            "turns": dict(self.turns),
            "utilization": self.utilization,
            "notes": list(self.notes),
            "resumptions": self.resumptions,
            "layers": self.layers,
            "facts": asdict(self.facts),
        }

    def remember(self, memory: dict[str, Any]) -> None:
        """Take over what an earlier process had recorded of the run."""
        self.rows = list(memory["rows"])
        self.turns = {int(turn): facts for turn, facts in memory["turns"].items()}
        self.utilization = memory["utilization"]
        self.notes.extend(note for note in memory["notes"] if note not in self.notes)
        self.resumptions = memory["resumptions"]

    def write(self) -> None:
        """Write both files. Raises `UsageError`."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        _replace(self.csv_path, table.getvalue())
        lock = self.json_path.with_name(f".{self.json_path.stem}.lock")
        with _writable(self.json_path), exclusive_lock(lock):  # the other method's command may be at work beside
            methods = self._other_methods() | {self.method: self._block()}
            whole = {"dataset": self.dataset, "model": self.model, "methods": dict(sorted(methods.items()))}
            _replace(self.json_path, json.dumps(_finite(whole), indent=2, allow_nan=False) + "\n")

    def summary(self) -> MethodSummary | None:
        """Return the figures of the turns so far, an unfinished one included; None before the first epoch."""
        if not self.rows:
            return None
        turns = [
            [row for row in self.rows if row["turn"] == turn] for turn in dict.fromkeys(r["turn"] for r in self.rows)
        ]
        # max keeps the first of equals, so ties go to the earlier epoch.
        chosen = [max(rows, key=lambda row: row["val_acc"]) for rows in turns]
        test_acc = [row["test_acc"] for row in chosen]
        train_time = [rows[-1]["train_time"] for rows in turns]
        seconds = sum(train_time)
        peaks = [turn["peak_memory_mb"] for turn in self.turns.values() if turn["peak_memory_mb"] is not None]
        return MethodSummary(
            method=self.method,
            turns=len(turns),
            chosen_epoch=[row["epoch"] for row in chosen],
            test_acc=test_acc,
            test_acc_mean=round(statistics.fmean(test_acc), 4),
            test_acc_std=round(statistics.stdev(test_acc), 4) if len(test_acc) > 1 else None,
            final_test_acc=[rows[-1]["test_acc"] for rows in turns],
            train_time=train_time,
            samples_per_s=round(self.facts.train_samples * len(self.rows) / seconds, 1) if seconds else None,
            parameters_training=self.facts.parameters_training,
            parameters_inference=self.facts.parameters_inference,
            peak_memory_mb=max(peaks, default=None),
        )

    def comparable(self) -> list[Method]:
        """Return the other methods on disk that were run with the same config and seeds, devices and speed aside."""

        def essence(config: dict[str, Any], seeds: list[int]) -> tuple[dict[str, Any], list[int]]:
            return {key: value for key, value in config.items() if key not in SAME_NUMBERS}, seeds

        mine = essence(self.facts.config, self.facts.seeds)
        methods: tuple[Method, ...] = ("al", "bp")
        blocks = self._other_methods()
        return [
            method
            for method in methods
            if isinstance(block := blocks.get(method), dict)
            and isinstance(block.get("config"), dict)
            and essence(block["config"], block.get("seeds", [])) == mine
        ]

    def _block(self) -> dict[str, Any]:
        summary = self.summary()
        last = {row["turn"]: row for row in self.rows}
        block = asdict(summary) if summary else {}
        block.pop("method", None)
        done = {"epochs_done": [row["epoch"] for row in last.values()], "final_epoch": list(last.values())}
        return (
            block
            | done
            | {"turns_finished": len(self.turns), "layers": self.layers}
            | asdict(self.facts)
            | {"utilization": self.utilization, "resumptions": self.resumptions, "notes": self.notes}
        )

    def _other_methods(self) -> dict[str, Any]:
        """Return the other methods' part of the JSON as it is on disk now; a damaged file counts as empty."""
        try:
            methods = json.loads(self.json_path.read_text(encoding="utf-8"))["methods"]
            return {name: block for name, block in methods.items() if name != self.method}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(
                f"{self.json_path}: cannot be read ({reason(error)}), and holds the other method's figures; mend that, "
                "or name another folder with --out"
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            notice = f"{self.json_path} is damaged ({type(error).__name__}) and will be replaced"
            if notice not in self.notices:
                self.notices.append(notice)
            return {}


def columns(method: Method, layers: int) -> list[str]:
    """Return the columns of a method's CSV, in order."""
    if method == "bp":
        return [*COMMON, "loss"]
    return [
        *COMMON,
        *(f"{name}_{i}" for name in ("assoc_loss", "ae_loss", "test_acc_depth") for i in range(1, layers + 1)),
    ]


def csv_path(out: Path, dataset: str, model: str, method: Method) -> Path:
    """Return where the epochs of a method are recorded."""
    return out / f"{dataset}_{model}_{method}.csv"


def json_path(out: Path, dataset: str, model: str) -> Path:
    """Return where everything else about both methods is recorded."""
    return out / f"{dataset}_{model}.json"


def prepare_output(path: str | Path) -> Path:
    """Make the folder of the results and return it; raise `UsageError` where nothing can be written into it."""
    out = user_path(str(path))
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out)
    except OSError as error:
        raise UsageError(
            f"{out}: results cannot be written there ({reason(error)}); name another folder with --out"
        ) from None
    return out


@contextlib.contextmanager
def lock_results(out: Path, dataset: str, model: str, method: Method) -> Iterator[None]:
    """Be the only command that writes this method's results in `out`, and remove what a killed one has left there.

    Raises UsageError where another one is at work.
    """
    path = csv_path(out, dataset, model, method)
    with contextlib.ExitStack() as held:
        with _writable(path):
            try:
                held.enter_context(exclusive_lock(path.with_name(f".{path.stem}.lock"), wait=False))
            except BlockingIOError:
                raise UsageError(
                    f"{out}: another command is at work on {dataset} {model} with {method.upper()} there; wait for its "
                    "end, or name another folder with --out"
                ) from None
            remove_stale(out, path.name)
        yield


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason(error)}); name another folder with --out") from None


def _replace(path: Path, text: str) -> None:
    with _writable(path):
        atomic_write_text(path, text)


def _finite(value: Any) -> Any:
    """Return `value` with null for NaN and the infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
