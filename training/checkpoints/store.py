"""Checkpoints: what a method's run needs to continue where it was. Whole, checked, and without code.

    <out>/checkpoints/<dataset>_<model>_<method>/
        20261125T101450.123456Z/                    when the run began; older runs go once this one has a checkpoint
            run.json                                what the run is: config, versions, the methods that belong to it
            turn1-epoch3-batch120.1-conv_1.pt       a file per layer: weights, buffers, moments
            turn1-epoch3-batch120.2-conv_2.pt
            turn1-epoch3-batch120.json              the manifest: position, sums, rows, and the files; written last

A checkpoint exists once its manifest does. A thread of its own writes it while training continues.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from data.storage.files import check_writable, remove_stale

from ..errors import UsageError, reason
from .info import CheckpointInfo, Position, RunRecord, TensorFile, positions, read_json, write_json
from .tensors import load_tensors, save_tensors

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: when its run began, both JSON files, and the state by layer, on the CPU.

    `layers` is empty where only the JSON files were asked for.
    """

    run: str
    record: RunRecord
    info: CheckpointInfo
    layers: dict[str, Any]


def checkpoint_folder(out: Path, dataset: str, model: str, method: str) -> Path:
    """Return where the checkpoints of a method are."""
    return out / "checkpoints" / f"{dataset}_{model}_{method}"


def run_name(began: datetime | None = None) -> str:
    """Return the name of a run that begins then, by default now; later ones sort after it."""
    return (began or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%S.%fZ")


class Store:
    """The last `keep` checkpoints of one method; with `keep` 0 nothing is written. `run`: what new ones belong to."""

    def __init__(self, folder: Path, keep: int, run: str) -> None:
        # Written to by a thread: whoever changes the current folder meanwhile, such as a tracker, must not move it.
        self.folder, self.keep, self.run = folder.absolute(), keep, run
        #: What the user should hear about the files.
        self.notices: list[str] = []
        #: Whether this process has written a checkpoint.
        self.written = False
        #: Of the newest checkpoint of the run.
        self.position: Position | None = None
        self._record: RunRecord | None = None
        self._unusable: set[tuple[str, Position]] = set()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def prepare(self) -> None:
        """Raise UsageError where no checkpoint could be written."""
        if self.keep:
            with self._write_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                check_writable(self.folder)

    def begin(self, record: RunRecord) -> None:
        """Have `record` written with the first checkpoint."""
        self._record = record

    def save(self, info: CheckpointInfo, layers: Mapping[str, Any]) -> None:
        """Start to write a checkpoint; the one before has been written when this returns.

        `layers`: nested dicts and lists of tensors and numbers, by layer; nobody may change them afterwards. Raises
        UsageError where the one before could not be written.
        """
        # One at a time: if the disk is slower than training, training waits, and memory does not fill with states.
        self.wait()
        if self.keep:
            self.position = info.position
            self._pending = self._writer.submit(self._write, info, layers)

    def finish_turn(self, log: dict[str, Any]) -> None:
        """Note in the newest checkpoint that its turn has been measured and recorded to the end. Raises UsageError."""
        self.wait()
        if self.position is not None:
            with self._write_errors():
                path = self._manifest(self.folder / self.run, self.position)
                info = read_json(path, CheckpointInfo)
                write_json(path, info.model_copy(update={"turn_finished": True, "log": log}))

    def wait(self) -> None:
        """Wait until nothing is being written. Raises UsageError where it failed; what was there before is intact."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._write_errors():
                pending.result()

    def close(self) -> None:
        """Let a write that is under way finish, without reporting failures, and end the writer."""
        self._writer.shutdown()

    def newest(self, *, with_layers: bool = True) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; `notices` names those that are not.

        Without its layers only the JSON files are looked at. Raises UsageError where the system refuses to read.
        """
        # From the newest run back: a later one has replaced the earlier, once it had a checkpoint.
        for folder in reversed(self._runs()):
            for position in reversed(positions(folder)):
                try:
                    return self._read(folder, position, with_layers)
                except FileNotFoundError as error:
                    problem = f"{Path(str(error.filename)).name} is missing"
                except IsADirectoryError as error:
                    problem = f"{Path(str(error.filename)).name} is a folder"
                except OSError as error:
                    # Not a damaged file: to start anew here would remove checkpoints that are good.
                    raise self._unreadable(folder / str(position), error) from None
                except (ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                    problem = str(error).partition("\n")[0]
                self._unusable.add((folder.name, position))
                self.notices.append(f"checkpoint {folder / str(position)} cannot be used ({problem}): passed over")
        return None

    def _read(self, folder: Path, position: Position, with_layers: bool) -> Checkpoint:
        info = read_json(self._manifest(folder, position), CheckpointInfo)
        record = read_json(folder / RUN_FILE, RunRecord)
        if info.position != position or info.epoch > info.epochs or info.batch > info.batches_per_epoch:
            raise ValueError("its JSON belongs to another place")
        layers = info.layers.items() if with_layers else ()
        # A name with a folder in it would lead out of this one.
        states = {layer: load_tensors(folder / Path(file.name).name, file.sha256) for layer, file in layers}
        return Checkpoint(folder.name, record, info, states)

    def _write(self, info: CheckpointInfo, layers: Mapping[str, Any]) -> None:
        folder = self.folder / self.run
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        # Before the manifest, so that no checkpoint is without it.
        if self._record is not None:
            write_json(folder / RUN_FILE, self._record)
            self._record = None
        files = {}
        for number, (layer, state) in enumerate(layers.items(), start=1):
            # The number keeps layers apart whose names differ only in what a file name cannot hold.
            name = f"{info.position}.{number}-{re.sub(r'[^A-Za-z0-9_-]', '_', layer)[:60]}.pt"
            files[layer] = TensorFile(name=name, sha256=save_tensors(folder / name, state))
        # Last, because from now on the checkpoint exists.
        write_json(self._manifest(folder, info.position), info.model_copy(update={"layers": files}))
        self.written = True
        # This position may have been marked as damaged; the file that has just been written is good.
        self._unusable.discard((self.run, info.position))
        self._drop_old(folder, info.position)

    def _drop_old(self, folder: Path, newest: Position) -> None:
        """Keep the newest `keep` usable checkpoints up to `newest`; remove all other files, and earlier runs.

        What lies beyond `newest` in its run is damaged: the run has continued from before it.
        """
        good = [one for one in positions(folder) if one <= newest and (folder.name, one) not in self._unusable]
        kept = {str(one) for one in good[-self.keep :]}
        for suffix in (".json", ".pt"):  # in this order: without its manifest a checkpoint does not exist
            for path in folder.glob(f"*{suffix}"):
                if path.name != RUN_FILE and path.name.partition(".")[0] not in kept and not path.is_dir():
                    path.unlink(missing_ok=True)
        for other in self._runs():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    @staticmethod
    def _manifest(folder: Path, position: Position) -> Path:
        return folder / f"{position}.json"

    def _runs(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.endswith("Z") and path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(self.folder, error) from None

    def _unreadable(self, path: Path, error: OSError) -> UsageError:
        return UsageError(
            f"{path}: cannot be read ({reason(error)}); repair that, or name another folder with --out to start anew"
        )

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turn what goes wrong with writing into a UsageError."""
        try:
            yield
        except (OSError, ValueError) as error:
            problem = reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"{self.folder}: a checkpoint could not be written ({problem}); repair that, or name another "
                "folder with --out; the earlier checkpoints are intact, and --resume continues from the last"
            ) from None
