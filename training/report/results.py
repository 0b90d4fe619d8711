"""All results of a folder, read and checked, as the pages show them. A file that is not ours stops nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from data.storage.clutter import is_clutter

from ..config.load import method_order, method_title
from ..config.objectives import OBJECTIVES
from ..config.paths import user_path
from ..config.schema import RESUME_MAY_CHANGE
from ..errors import UsageError, reason
from .exits import TurnExits
from .output import csv_path, json_path
from .run_info import RunInfo
from .saved import comparable
from .summary import MethodSummary

#: Bytes; what is larger is no result of ours, and reading it after every epoch would take seconds.
LARGEST = 20_000_000


class WorkerUse(BaseModel):
    """How a worker spent its time, in percent."""

    device: str
    layers: list[str]
    busy: float
    idle: float
    data: float
    copy_: float
    ran: dict[str, float] = {}

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))


class LayerUse(BaseModel):
    """What a layer cost, and which workers ran it, in percent."""

    layer: str
    share: float
    ms_per_batch: float
    workers: dict[str, float]


class RankUse(BaseModel):
    """What a process held and sent, in bytes."""

    rank: int
    host: str
    layers: list[str]
    weights: int
    moments: int
    sent: dict[str, int]


class Use(BaseModel):
    """What `Utilization.to_json` wrote."""

    devices: list[WorkerUse]
    layers: list[LayerUse] = []
    utilization: float
    at_work: float
    ceiling: float
    bottleneck: str
    speedup_estimate: float | None
    advice: str
    ranks: list[RankUse] = []
    weights: int = 0

    @field_validator("devices", mode="before")
    @classmethod
    def _from_before(cls, devices: Any) -> Any:
        """Read what was recorded when a worker owned neighboring layers: only the first one could wait for data."""
        if not isinstance(devices, list):
            return devices
        return [_worker_before(row, first=number == 0) for number, row in enumerate(devices)]


def _worker_before(row: Any, *, first: bool) -> Any:
    if not isinstance(row, dict) or not {"busy", "copy", "wait_input"} <= set(row):
        return row
    data = row["wait_input"] if first else 0.0
    return {**row, "data": data, "idle": max(0.0, 100.0 - row["busy"] - row["copy"] - data)}


class ExcerptSpans(BaseModel):
    """A part of a timeline. A span: worker, layer, phase, batch, start and stop in ms."""

    name: str
    batch: int
    milliseconds: float
    spans: list[tuple[int, str, str, int, float, float]]


class TimelineSpans(BaseModel):
    """What `Timeline.to_json` wrote."""

    workers: list[str]
    layers: list[str]
    excerpts: list[ExcerptSpans]


class Record(BaseModel):
    """What the JSON of a method holds beside its `MethodSummary` and its `RunInfo`."""

    dataset: str
    model: str
    method: str
    turns_finished: int
    epochs_done: list[int]
    utilization: Use | None = None
    timeline: TimelineSpans | None = None
    resumptions: int = 0
    early_exit: list[TurnExits] = []


_INFO, _SUMMARY = TypeAdapter(RunInfo), TypeAdapter(MethodSummary)


@dataclass(frozen=True)
class Result:
    """The results of a method, as its JSON has them."""

    path: Path
    record: Record
    info: RunInfo
    summary: MethodSummary
    written: datetime
    """When the last epoch was recorded."""

    @property
    def method(self) -> str:
        """The method's name."""
        return self.record.method

    @property
    def title(self) -> str:
        """How a reader knows the method."""
        return method_title(self.record.method)

    @property
    def run(self) -> tuple[str, str]:
        """The data set and the model."""
        return self.record.dataset, self.record.model

    @property
    def csv(self) -> Path:
        """The file of its epochs."""
        return csv_path(self.path.parent, self.record.dataset, self.record.model, self.record.method)

    @property
    def began(self) -> datetime:
        """When the method began; results from before this was recorded have the time of their last epoch."""
        try:
            return datetime.fromisoformat(str(self.info.provenance.get("date"))).astimezone(timezone.utc)
        except ValueError:
            return self.written

    @property
    def finished(self) -> bool:
        """Whether all turns have been finished."""
        return self.record.turns_finished >= len(self.info.seeds)

    @property
    def state(self) -> str:
        """How far the run is, in words."""
        turns, begun, epochs = len(self.info.seeds), len(self.record.epochs_done), self.info.config.get("epochs")
        if self.finished:
            return "finished"
        if begun > self.record.turns_finished:
            return f"turn {begun} of {turns}, epoch {self.record.epochs_done[-1]} of {epochs} so far"
        return f"{begun} of {turns} turns so far"

    @property
    def finals(self) -> dict[int, float]:
        """The test accuracy of every finished turn, by seed."""
        return dict(list(zip(self.info.seeds, self.summary.test_acc, strict=False))[: self.record.turns_finished])


@dataclass(frozen=True)
class Folder:
    """What was found in a folder of results."""

    path: Path
    results: list[Result]
    """By data set and model; AL and BP come first."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why a file could not be read, by name."""
    others: list[str] = field(default_factory=list)
    """The names of JSON files that hold something else."""

    def runs(self) -> Iterator[list[Result]]:
        """Yield the methods of each data set and model."""
        for _, group in groupby(self.results, key=lambda result: result.run):
            yield list(group)


class ForeignError(ValueError):
    """A JSON file that is no result."""


def read_folder(path: Path) -> Folder:
    """Return all results in a folder. Raises OSError where the folder itself cannot be read."""
    found = Folder(path, [])
    for file in sorted(entry for entry in path.iterdir() if entry.suffix == ".json" and not is_clutter(entry.name)):
        try:
            found.results.append(read_result(file))
        except ForeignError:
            found.others.append(file.name)
        except FileNotFoundError:
            continue  # removed in the meantime
        except (OSError, ValueError) as error:
            found.unreadable[file.name] = reason(error) if isinstance(error, OSError) else str(error)
    found.results.sort(key=_order)
    return found


def read_results(out: Path) -> Folder:
    """Return the results in a folder. Raises UsageError where it cannot be read."""
    try:
        return read_folder(out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be read ({reason(error)}); name a folder of results") from None


def named_folder(text: str) -> Folder:
    """Return the results of a folder that a user names, which has some. Raises UsageError."""
    path = user_path(text)
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder; name one that holds results")
    if not path.is_dir():
        raise UsageError(f"{path}: is a file; name the folder that it is in")
    folder = read_results(path)
    if folder.results:
        return folder
    if folder.unreadable:
        name, why = next(iter(folder.unreadable.items()))
        raise UsageError(f"{path / name}: cannot be read as results ({why}), and there are no others in the folder")
    inside = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and any(entry.glob("*_*_*.json"))]
    hint = f"did you mean {path / inside[0]}?" if inside else "name a folder that a command wrote to (--out)"
    raise UsageError(f"{path}: there are no results in it; {hint}")


def read_result(path: Path) -> Result:
    """Return what a method's JSON holds. Raises OSError, and ValueError of one line for one that is damaged."""
    with open(path, "rb") as file:
        head = file.read(100)
        if b'"traceEvents"' in head or file.seek(0, 2) > LARGEST:
            raise ForeignError
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not {"dataset", "model", "method"} <= set(content):
        raise ForeignError
    try:
        record, info, summary = (
            Record.model_validate(content),
            _INFO.validate_python(content),
            _SUMMARY.validate_python(content),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg'].splitlines()[0]}") from None
    home = json_path(path.parent, record.dataset, record.model, record.method)
    if home != path:
        raise ValueError(f"holds what belongs in {home.name}")
    if not len(record.epochs_done) == summary.turns == len(summary.test_acc) >= 1:
        raise ValueError("its turns do not agree")
    return Result(path, record, info, summary, datetime.fromtimestamp(path.stat().st_mtime, timezone.utc))


def select(group: Sequence[Result], methods: Sequence[str] = ()) -> tuple[list[Result], dict[str, str]]:
    """Return which methods of a data set and model are shown together, and by method why another one is not.

    Those of `methods`, or else the one that was written last, and what can be compared with one of them.
    """
    newest = max(group, key=lambda result: result.written)
    own = [result for result in group if result.method in methods] or [newest]
    shown = [result for result in group if result in own or any(comparable(_run(result), _run(one)) for one in own)]
    return shown, {other.title: why_not(other, own[0]) for other in group if other not in shown}


def why_not(other: Result, own: Result) -> str:
    """Say in what two runs differ, so that they are not compared."""
    one, two = other.info.config, own.info.config
    passed_over = {*RESUME_MAY_CHANGE, OBJECTIVES}
    keys = [key for key in {**one, **two} if key not in passed_over and one.get(key) != two.get(key)]
    if keys:
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        return f"another configuration ({', '.join(keys[:5])}{more})"
    return f"other seeds ({_listed(other.info.seeds)} instead of {_listed(own.info.seeds)})"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{seeds[0]} to {seeds[-1]}"


def _run(result: Result) -> dict[str, Any]:
    return {"config": result.info.config, "seeds": result.info.seeds}


def _order(result: Result) -> tuple[Any, ...]:
    return *(part.casefold() for part in result.run), result.run, method_order(result.method)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")
