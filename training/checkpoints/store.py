"""Checkpoints: what a method's run needs to go on where it was. Whole, checked, and without code.

    <out>/checkpoints/<dataset>_<model>_<method>/
        20261125T101450.123456Z/          when the run began; older runs go once this one has a checkpoint
            turn1-epoch3-batch120.pt      tensors: weights, moments, running sums of the losses
            turn1-epoch3-batch120.json    everything else, readable, with the checksums of both; written last

A checkpoint exists once its JSON does. It is written by a thread of its own, while training goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.storage.files import atomic_write, atomic_write_text, check_writable, remove_stale

from ..errors import UsageError, reason

FORMAT = 1
NAME = re.compile(r"turn(\d+)-epoch(\d+)-batch(\d+)")


@dataclass(frozen=True, order=True)
class Position:
    """How far a run is: it has trained on `batch` batches of `epoch` of `turn`, the last two counted from 1."""

    turn: int
    epoch: int
    batch: int

    def __str__(self) -> str:
        return f"turn{self.turn}-epoch{self.epoch}-batch{self.batch}"


Count = Annotated[int, Field(ge=1)]


class CheckpointFacts(BaseModel):
    """What stands in a checkpoint's JSON, beside its own checksum."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int = FORMAT
    dataset: str
    model: str
    method: str
    methods: list[str]
    """Those of the command that trains this one in the same run."""
    date: str
    turn: Count
    epoch: Count
    batch: Count
    step: Annotated[int, Field(ge=0)]
    turns: Count
    epochs: Count
    batches_per_epoch: Count
    turn_finished: bool = False
    """Whether the turn has been measured and recorded to its end, so that there is nothing left to do in it."""
    train_time: float
    threads: Count
    config: dict[str, Any]
    versions: dict[str, Any]
    results: dict[str, Any]
    """What `Results.memory` told."""
    sha256_of_pt: str = ""

    @property
    def position(self) -> Position:
        """How far the run was."""
        return Position(self.turn, self.epoch, self.batch)

    @property
    def finished(self) -> bool:
        """Whether the run that left it had nothing left to do in any turn."""
        return self.turn_finished and self.turn == self.turns


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: when its run began, the facts of its JSON, and the trainer's `state`, on the CPU.

    `state` is empty where only the facts were asked for.
    """

    run: str
    facts: CheckpointFacts
    state: dict[str, Any]


def checkpoint_folder(out: Path, dataset: str, model: str, method: str) -> Path:
    """Return where the checkpoints of a method are."""
    return out / "checkpoints" / f"{dataset}_{model}_{method}"


def run_name() -> str:
    """Return the name of a run that begins now; later ones sort behind it."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


class Store:
    """The last `keep` checkpoints of one method; with `keep` 0 nothing is written. `run`: what a new one belongs to."""

    def __init__(self, folder: Path, keep: int, run: str) -> None:
        self.folder, self.keep, self.run = folder, keep, run
        #: What the user should be told about the files.
        self.notices: list[str] = []
        #: Whether a checkpoint of this run is there.
        self.written = False
        self._unusable: set[tuple[str, Position]] = set()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def prepare(self) -> None:
        """Raise UsageError where no checkpoint could be written."""
        if self.keep:
            with self._told():
                self.folder.mkdir(parents=True, exist_ok=True)
                check_writable(self.folder)

    def save(self, facts: CheckpointFacts, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; the one before has been written when this returns.

        `state`: nested dicts and lists of tensors and numbers. Nobody may change it any more. Raises UsageError where
        the one before could not be written.
        """
        self.wait()
        if self.keep:
            self._pending = self._writer.submit(self._write, facts, state)

    def amend(self, position: Position, **changes: Any) -> None:
        """Change facts of a checkpoint that was saved in this run. Raises UsageError."""
        self.wait()
        with self._told():
            facts = self._facts(self.folder / self.run, position)
            self._write_facts(facts.model_copy(update=changes))

    def wait(self) -> None:
        """Wait until nothing is being written. Raises UsageError where it failed; what was there before is intact."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._told():
                pending.result()

    def close(self) -> None:
        """Let what is being written come to its end, without a word about failures, and end the writer."""
        self._writer.shutdown()

    def newest(self, *, with_state: bool = True) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; `notices` tells of those that are not.

        Without its state only its facts are looked at. Raises UsageError where the system does not let us read.
        """
        for folder in reversed(self._runs()):
            for position in reversed(_positions(folder)):
                where = folder / str(position)
                try:
                    facts = self._facts(folder, position)
                    return Checkpoint(folder.name, facts, self._state(folder, facts) if with_state else {})
                except FileNotFoundError as error:
                    problem = f"{Path(str(error.filename)).name} is missing"
                except IsADirectoryError as error:
                    problem = f"{Path(str(error.filename)).name} is a folder"
                except OSError as error:
                    raise self._unreadable(where, error) from None
                except (ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                    problem = str(error).partition("\n")[0]
                self._unusable.add((folder.name, position))
                self.notices.append(f"checkpoint {where} cannot be used ({problem}): passed over")
        return None

    def _runs(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.endswith("Z") and path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(self.folder, error) from None

    def _unreadable(self, path: Path, error: OSError) -> UsageError:
        return UsageError(
            f"{path}: cannot be read ({reason(error)}); mend that, or name another folder with --out to start anew"
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            problem = reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"{self.folder}: a checkpoint could not be written ({problem}); mend that, or name another "
                "folder with --out; the earlier checkpoints are intact, and --resume goes on from the last"
            ) from None

    def _write(self, facts: CheckpointFacts, state: dict[str, Any]) -> None:
        folder = self.folder / self.run
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        # By way of the memory: torch hides what went wrong with a file behind words of its own.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        with atomic_write(folder / f"{facts.position}.pt") as file:
            file.write(content)
        self._write_facts(facts.model_copy(update={"sha256_of_pt": hashlib.sha256(content).hexdigest()}))
        self.written = True
        self._unusable.discard((self.run, facts.position))  # written again, after the run had gone on from before it
        self._drop_old(folder, facts.position)

    def _write_facts(self, facts: CheckpointFacts) -> None:
        told = json.loads(json.dumps(facts.model_dump()))  # as a reader gets it, so that the checksum is that of both
        text = json.dumps({"sha256": _checksum(told), **told}, indent=1)
        atomic_write_text(self.folder / self.run / f"{facts.position}.json", text + "\n")

    def _drop_old(self, folder: Path, newest: Position) -> None:
        """Remove all but the last `keep` good ones up to `newest`, files of a writing that was cut, and earlier runs.

        What lies beyond `newest` in its run is damaged: the run has gone on from before it.
        """
        found = _positions(folder)
        good = [one for one in found if one <= newest and (folder.name, one) not in self._unusable]
        kept = [str(one) for one in good[-self.keep :]]
        for suffix in (".json", ".pt"):  # in this order: without its JSON a checkpoint is none
            for path in folder.glob(f"*{suffix}"):
                if path.stem not in kept and not path.is_dir():
                    path.unlink(missing_ok=True)
        for other in self._runs():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def _facts(self, folder: Path, position: Position) -> CheckpointFacts:
        told = json.loads((folder / f"{position}.json").read_text(encoding="utf-8"))
        if not isinstance(told, dict) or told.pop("sha256", None) != _checksum(told):
            raise ValueError("its JSON is not what was written")
        if told.get("format") != FORMAT:
            raise ValueError(f"its format is {told.get('format')}, and this version knows {FORMAT}")
        try:
            facts = CheckpointFacts.model_validate(told)
        except ValidationError as error:
            raise ValueError(f"its JSON holds no fitting {error.errors()[0]['loc'][0]}") from None
        mine = facts.position == position and self.folder.name == f"{facts.dataset}_{facts.model}_{facts.method}"
        if not mine or facts.epoch > facts.epochs or facts.batch > facts.batches_per_epoch:
            raise ValueError("its JSON belongs to another place")
        return facts

    def _state(self, folder: Path, facts: CheckpointFacts) -> dict[str, Any]:
        content = (folder / f"{facts.position}.pt").read_bytes()
        if hashlib.sha256(content).hexdigest() != facts.sha256_of_pt:
            raise ValueError("its tensors are not what was written")
        # weights_only: a file that would run code is refused.
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state


def _positions(folder: Path) -> list[Position]:
    found = [NAME.fullmatch(path.stem) for path in folder.glob("*.json")]
    return sorted(Position(*map(int, match.groups())) for match in found if match)


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
