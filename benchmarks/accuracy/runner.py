"""Run commands in processes of their own, some at once, each on a core of its own, and read what they leave."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from training.config.arguments import parse
from training.config.parser import SCRIPTS
from training.report.output import csv_path, json_path

from .choice import best
from .grid import Run
from .records import Record, Records, asked, lasting

__all__ = ["RunError", "run_all"]

ROOT = Path(__file__).resolve().parents[2]
#: Columns of a method's CSV that are kept, beside AL's accuracy by depth.
COLUMNS = ("train_acc", "val_acc", "test_acc", "train_time")
LAST_LINES = 10


class RunError(RuntimeError):
    """A run failed."""


@dataclass
class _Started:
    run: Run
    process: subprocess.Popen[bytes]
    folder: Path
    data_root: Path
    asked: Record
    begun: float


def run_all(
    runs: list[Run], records: Records, *, data_root: Path, at_once: int, pinned: bool, say: Callable[[str], None]
) -> None:
    """Run what is not finished yet, `at_once` at a time, and record each run when it ends.

    `pinned`: each of those at work has one core for itself. One that fails lets the others at work finish, and none
    begin; then `RunError` is raised, with the end of what it said. No process outlives this call.
    """
    waiting = records.missing(runs)
    say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before")
    active: dict[int, _Started] = {}
    failure = ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or active:
                for slot in range(at_once):
                    if slot not in active and waiting:
                        active[slot] = _start(waiting.pop(0), Path(folder), data_root, slot if pinned else None)
                time.sleep(0.05)
                for slot, started in list(active.items()):
                    code = started.process.poll()
                    if code is None:
                        continue
                    del active[slot]
                    try:
                        facts = _finished(started, code)
                        records.add(started.run, facts)
                        say(_told(started.run, facts))
                    except (RunError, OSError) as error:
                        waiting.clear()
                        failure = failure or f"{started.run}: {error}"
        finally:
            for started in active.values():
                started.process.kill()
                started.process.wait()
    if failure:
        raise RunError(failure)


def _start(run: Run, parent: Path, data_root: Path, slot: int | None) -> _Started:
    folder = Path(tempfile.mkdtemp(dir=parent))
    config = asked(run)
    data_root = data_root.resolve()
    where = ["--data-root", str(data_root), "--out", str(folder / "result")]
    environment = dict(os.environ) if slot is None else {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, SCRIPTS[run.cell.task], *run.argv, *where],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    if slot is not None and hasattr(os, "sched_setaffinity"):  # Linux
        # Before the process has threads, which inherit it; a call between fork and exec may deadlock, this one cannot.
        os.sched_setaffinity(process.pid, {sorted(os.sched_getaffinity(0))[slot]})
    return _Started(run, process, folder, data_root, config, begun)


def _finished(started: _Started, code: int) -> Record:
    """Return the facts of a run that has ended. Raises `RunError` where it failed or left no results."""
    if code != 0:
        raise RunError(f"exit code {code}\n{_last_words(started)}")
    try:
        return _facts(started, time.monotonic() - started.begun)
    except (OSError, ValueError, LookupError) as error:
        raise RunError(f"its results cannot be read ({type(error).__name__}: {error})") from error


def _facts(started: _Started, seconds: float) -> Record:
    """Return what the files of a finished run say. Paths and the rest of this machine's life stay out of it."""
    run, out = started.run, started.folder / "result"
    arguments = parse(run.cell.task, run.argv)
    block = json.loads(json_path(out, arguments.dataset, arguments.model, run.method).read_text(encoding="utf-8"))
    with csv_path(out, arguments.dataset, arguments.model, run.method).open(encoding="utf-8", newline="") as file:
        rows = [
            {"epoch": int(row["epoch"])}
            | {name: float(row[name]) for name in row if name in COLUMNS or name.startswith("test_acc_depth_")}
            for row in csv.DictReader(file)
        ]
    said = (started.folder / "stdout").read_text(encoding="utf-8", errors="replace")
    classes = re.search(r"; (\d+) classes", said)
    if classes is None:
        raise RunError("it does not say how many classes there are")
    return {
        "rows": rows,
        "notes": [note.replace(f"{started.data_root}{os.sep}", "") for note in block.get("notes", [])],
        "classes": int(classes[1]),
        "wall_s": round(seconds, 1),
        **{name: block[name] for name in ("train_samples", "parameters_training", "parameters_inference", "threads")},
        "asked": started.asked,
        "config": lasting(block["config"]),
        "provenance": {key: value for key, value in block["provenance"].items() if key != "command"},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _told(run: Run, facts: Record) -> str:
    row = best(facts)
    return (
        f"{run.phase}: {run}: validation {row['val_acc']:.2f} %, test {row['test_acc']:.2f} %, {facts['wall_s']:.0f} s"
    )


def _last_words(started: _Started) -> str:
    said = (started.folder / "stderr").read_text(encoding="utf-8", errors="replace")
    return "\n".join(said.splitlines()[-LAST_LINES:])
