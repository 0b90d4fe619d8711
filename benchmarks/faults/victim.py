"""A process that runs a command and, where told so, kills itself in the middle of writing a file."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, cast

from training.config.schema import Task
from training.experiment import main

__all__ = ["STAGES", "work"]

#: Where in the writing of a file: half of it is written; all of it, without a name; it has its name.
STAGES = ("half", "nameless", "named")


def work(task: str, command: str, log: str, write: int | None, stage: str) -> None:
    """Run the command with its output appended to `log`; die at `stage` of file number `write`, counted from 0."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if write is not None:
        _arm(write, stage)
    sys.exit(main(cast(Task, task), shlex.split(command)))


def _arm(write: int, stage: str) -> None:
    replace, begun = os.replace, [0]

    def replaced(source: Any, target: Any) -> None:
        number, begun[0] = begun[0], begun[0] + 1
        if number == write and stage == "half":
            os.truncate(source, Path(source).stat().st_size // 2)
        if number == write and stage == "named":
            replace(source, target)
        if number == write:
            print(f"killed: {stage} {Path(target).suffix}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replaced
