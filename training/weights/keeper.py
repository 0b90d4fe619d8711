"""Keep the weights of every turn's best epoch, while it trains.

    <out>/models/<dataset>_<model>_<method>/
        20261125T101450.123456Z/        when the run began, as its results and its checkpoints say
            run.json                    the network: configuration, classes, what an input goes through, versions
            turn1-epoch3.1.pt           a state dict per layer
            turn1.json                  the turn's epoch, its accuracies, the file and its checksum; written last
            turn1.before.json           the same of the epoch that was the best before, until the results name this one

An epoch is kept before the results name it, and what it replaces goes afterwards: at any moment the results in a folder
have their weights.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from data.storage.files import atomic_write_text, check_writable, remove_stale

from ..checkpoints.info import TensorFile, read_json, write_json
from ..checkpoints.tensors import load_tensors, save_tensors
from ..config.spec import RunSpec
from ..errors import UsageError, reason
from .info import RUN_FILE, KeptRun, KeptTurn, before_path, models_folder, turn_path


def make_keeper(spec: RunSpec, run: str) -> Keeper:
    """Return where the weights of a method go, in a run of that name."""
    folder = models_folder(spec.out, spec.dataset, spec.model, spec.method)
    return Keeper(folder, run, wanted=spec.config.keep_best)


class Keeper:
    """The kept weights of one method; with `wanted` False nothing is written.

    `run`: the name of the run, which the results have too.
    """

    def __init__(self, folder: Path, run: str, *, wanted: bool) -> None:
        self.folder, self.run, self.wanted = folder.absolute(), run, wanted
        self._record: KeptRun | None = None
        self._latest: dict[str, Any] | None = None
        #: What the results name until they are written again.
        self._replaced: list[Path] = []

    def prepare(self) -> None:
        """Raise UsageError where nothing could be written."""
        if self.wanted:
            with self._write_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                check_writable(self.folder)

    def begin(self, record: KeptRun) -> None:
        """Have `record` written with the first weights."""
        self._record = record

    def take(self, layers: Mapping[str, Any]) -> None:
        """Hold on to the weights of the epoch that has just been trained; `layers` as a snapshot or a checkpoint."""
        if self.wanted:
            self._latest = {name: state["layer"] for name, state in layers.items()}

    def keep(self, *, turn: int, seed: int, epoch: int, val_acc: float, test_acc: Sequence[float]) -> None:
        """Write the weights that were taken last: this epoch is the best one of its turn so far. Raises UsageError."""
        if not self.wanted:
            return
        assert self._record is not None  # both come before the first measurement
        assert self._latest is not None
        folder, record = self.folder / self.run, self._record
        with self._write_errors():
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder)
            write_json(folder / RUN_FILE, record)
            # A name that is free: an interrupted run comes to its epochs again, and what is there may be all it has.
            names = (f"turn{turn}-epoch{epoch}.{number}.pt" for number in count(1))
            name = next(name for name in names if not (folder / name).exists())
            kept = KeptTurn(
                dataset=record.dataset,
                model=record.model,
                method=record.method,
                turn=turn,
                seed=seed,
                epoch=epoch,
                val_acc=val_acc,
                test_acc=list(test_acc),
                weights=TensorFile(name=name, sha256=save_tensors(folder / name, self._latest)),
            )
            path, before = turn_path(folder, turn), before_path(folder, turn)
            if path.exists() and not before.exists():  # of a run that was killed here it is what the results name
                atomic_write_text(before, path.read_text(encoding="utf-8"))
            write_json(path, kept)
            self._replaced = [before, *(other for other in folder.glob(f"turn{turn}-*.pt") if other.name != name)]

    def settle(self) -> None:
        """Let go of the weights that were taken, now that the results have been written.

        Once this run has any, what they replace is removed, and those of earlier runs; the latter at once where none
        are wanted: the results are of this run now, and nothing could use them.
        """
        self._latest = None
        for path in self._replaced:
            with contextlib.suppress(OSError):
                path.unlink()
        self._replaced = []
        if not self.wanted or (self.folder / self.run).exists():
            for other in self.folder.glob("*/"):
                if other.name != self.run:
                    shutil.rmtree(other, ignore_errors=True)
            with contextlib.suppress(OSError):  # what is not empty, or not there, stays so
                self.folder.rmdir()

    def kept(self, turn: int) -> tuple[int, dict[str, Any]] | None:
        """Return the epoch of a turn whose weights are there, and them: a state dict per layer; None where none are."""
        folder = self.folder / self.run
        try:
            found = read_json(turn_path(folder, turn), KeptTurn)
            return found.epoch, load_tensors(folder / found.weights.name, found.weights.sha256)
        except (OSError, ValueError):
            return None

    def missing(self, chosen: Mapping[int, int]) -> list[int]:
        """Return the turns whose chosen epoch an earlier process has trained without keeping its weights.

        `chosen`: the epoch by turn.
        """
        return [turn for turn, epoch in chosen.items() if self.wanted and self._epoch(turn) < epoch]

    def _epoch(self, turn: int) -> int:
        """Return the epoch whose weights are there; 0 where none are."""
        try:
            return read_json(turn_path(self.folder / self.run, turn), KeptTurn).epoch
        except (OSError, ValueError):
            return 0

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turn what goes wrong with writing into a UsageError."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.folder}: the weights of the best epoch could not be written ({reason(error)}); repair that, "
                "name another folder with --out, or leave them out with --set keep_best=false; --resume continues from "
                "the last checkpoint"
            ) from None
