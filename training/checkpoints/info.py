"""The two JSON files of a run's checkpoints: what the run is, and how far a checkpoint is. Both carry a checksum.

`run.json` stands once in the folder of a run and holds what is the same for all its checkpoints. A checkpoint's own
JSON, the manifest, names the files of the layers with their checksums.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.storage.files import atomic_write_text

#: Rises whenever a file is laid out differently; other formats are passed over.
FORMAT = 2
NAME = re.compile(r"turn(\d+)-epoch(\d+)-batch(\d+)")
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, order=True)
class Position:
    """How far a run is: it has trained on `batch` batches of `epoch` of `turn`; all three are counted from 1."""

    turn: int
    epoch: int
    batch: int

    def __str__(self) -> str:
        return f"turn{self.turn}-epoch{self.epoch}-batch{self.batch}"


def positions(folder: Path) -> list[Position]:
    """Return the positions of the manifests in `folder`, in order."""
    names = [NAME.fullmatch(path.stem) for path in folder.glob("*.json")]
    return sorted(Position(*map(int, match.groups())) for match in names if match)


class StoredFile(BaseModel):
    """What both files have."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int = FORMAT
    dataset: str
    model: str
    method: str

    @property
    def place(self) -> str:
        """The name of the folder in which the file belongs."""
        return f"{self.dataset}_{self.model}_{self.method}"


class RunRecord(StoredFile):
    """`run.json`: what a run is."""

    methods_of_run: list[str]
    """The methods that train in this run: those of the command that started it."""
    info: dict[str, Any]
    """`training.report.run_info.RunInfo`: config, versions and machine of the process that wrote it last."""


class TensorFile(BaseModel):
    """The file of one layer."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: str
    sha256: str


class CheckpointInfo(StoredFile):
    """The manifest: how far the checkpoint is, and where its tensors are."""

    date: str
    turn: Count
    epoch: Count
    batch: Count
    step: Annotated[int, Field(ge=0)]
    turns: Count
    epochs: Count
    batches_per_epoch: Count
    turn_finished: bool = False
    """Whether the turn has also been measured and recorded to its end, so that nothing is left to do in it."""
    train_time: float
    losses: dict[str, Any]
    """`training.trainers.losses.EpochLosses.state`: the running sums of the epoch."""
    log: dict[str, Any]
    """`training.report.run_log.RunLog.state`: the rows, turns and notes so far."""
    layers: dict[str, TensorFile] = Field(default_factory=dict)
    """By layer name; filled in when the files have been written."""

    @property
    def position(self) -> Position:
        """How far the run was."""
        return Position(self.turn, self.epoch, self.batch)

    @property
    def finished(self) -> bool:
        """Whether the run that wrote it had nothing left to do in any turn."""
        return self.turn_finished and self.turn == self.turns


FileType = TypeVar("FileType", bound=StoredFile)


def write_json(path: Path, content: StoredFile) -> None:
    """Write `content` with its checksum, as a whole or not at all. Raises OSError."""
    values = json.loads(json.dumps(content.model_dump()))  # as a reader gets it, so that both compute one checksum
    atomic_write_text(path, json.dumps({"sha256": checksum(values), **values}, indent=1) + "\n")


def read_json(path: Path, kind: type[FileType]) -> FileType:
    """Return what `write_json` wrote. Raises ValueError for anything else, and OSError."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.pop("sha256", None) != checksum(values):
        raise ValueError(f"{_what(path)} is not what was written")
    if values.get("format") != FORMAT:
        raise ValueError(f"its format is {values.get('format')}, and this version reads {FORMAT}")
    try:
        content = kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{_what(path)} holds no valid {error.errors()[0]['loc'][0]}") from None
    if content.place != path.parents[1].name:
        raise ValueError(f"{_what(path)} belongs to another place")
    return content


def checksum(values: dict[str, Any]) -> str:
    """Return the SHA-256 of values that stand in a JSON file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _what(path: Path) -> str:
    return path.name if path.name == "run.json" else "its JSON"
