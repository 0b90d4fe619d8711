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
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .errors import UsageError, reason
from .files import replace_text, replacing, sweep

__all__ = ["Checkpoint", "Position", "Store", "checkpoint_folder", "run_name"]

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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: when its run began, the `facts` of its JSON, and the trainer's `state`, on the CPU."""

    run: str
    position: Position
    facts: dict[str, Any]
    state: dict[str, Any]

    @property
    def turn_finished(self) -> bool:
        """Whether the turn has been measured and recorded to its end, so that there is nothing left to do in it."""
        return bool(self.facts["turn_finished"])

    @property
    def finished(self) -> bool:
        """Whether the run that left it had nothing left to do in any turn."""
        return self.turn_finished and self.position.turn == self.facts["turns"]


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
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, position: Position, facts: dict[str, Any], state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; the one before has been written when this returns.

        `facts`: ready for JSON. `state`: nested dicts and lists of tensors and numbers. Nobody may change them
        any more. Raises UsageError where the one before could not be written.
        """
        self.wait()
        if self.keep:
            self._pending = self._writer.submit(self._write, position, facts, state)

    def amend(self, position: Position, changes: dict[str, Any]) -> None:
        """Change facts of a checkpoint that was saved in this run. Raises UsageError."""
        self.wait()
        with self._told():
            facts = self._facts(self.folder / self.run, position)
            self._write_facts(position, facts | changes)

    def wait(self) -> None:
        """Wait until nothing is being written. Raises UsageError where it failed; what was there before is intact."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._told():
                pending.result()

    def close(self) -> None:
        """Let what is being written come to its end, without a word about failures, and end the writer."""
        self._writer.shutdown()

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; `notices` tells of those that are not."""
        for folder in reversed(self._runs()):
            for position in reversed(_positions(folder)):
                try:
                    return self._read(folder, position)
                except FileNotFoundError as error:
                    problem = f"{Path(str(error.filename)).name} is missing"
                except OSError as error:
                    problem = reason(error)
                except (ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                    problem = str(error).partition("\n")[0]
                self.notices.append(f"checkpoint {folder / str(position)} cannot be used ({problem}): passed over")
        return None

    def _runs(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*Z") if path.is_dir())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.folder}: a checkpoint could not be written ({reason(error)}); mend that, or name another "
                "folder with --out; the earlier checkpoints are intact, and --resume goes on from the last"
            ) from None

    def _write(self, position: Position, facts: dict[str, Any], state: dict[str, Any]) -> None:
        folder = self.folder / self.run
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        # By way of the memory: torch hides what went wrong with a file behind words of its own.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        with replacing(folder / f"{position}.pt") as file:
            file.write(content)
        told = {"format": FORMAT, **asdict(position), **facts, "sha256_of_pt": hashlib.sha256(content).hexdigest()}
        self._write_facts(position, told)
        self.written = True
        self._drop_old(folder)

    def _write_facts(self, position: Position, facts: dict[str, Any]) -> None:
        facts = json.loads(json.dumps(facts))  # as a reader gets them, so that the checksum is that of both
        text = json.dumps({"sha256": _checksum(facts), **facts}, indent=1)
        replace_text(self.folder / self.run / f"{position}.json", text + "\n")

    def _drop_old(self, folder: Path) -> None:
        """Remove the checkpoints beyond `keep`, files of one whose writing was cut short, and earlier runs."""
        positions = _positions(folder)
        for old in positions[: -self.keep]:
            (folder / f"{old}.json").unlink(missing_ok=True)
        kept = {str(position) for position in positions[-self.keep :]}
        for path in folder.glob("*.pt"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
        for other in self._runs():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def _facts(self, folder: Path, position: Position) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((folder / f"{position}.json").read_text(encoding="utf-8"))
        told = facts.pop("sha256")
        if told != _checksum(facts):
            raise ValueError("its JSON is not what was written")
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, and this version knows {FORMAT}")
        return facts

    def _read(self, folder: Path, position: Position) -> Checkpoint:
        facts = self._facts(folder, position)
        content = (folder / f"{position}.pt").read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256_of_pt"]:
            raise ValueError("its tensors are not what was written")
        # weights_only: a file that would run code is refused.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return Checkpoint(folder.name, position, facts, state)


def _positions(folder: Path) -> list[Position]:
    found = [NAME.fullmatch(path.stem) for path in folder.glob("*.json")]
    return sorted(Position(*map(int, match.groups())) for match in found if match)


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
