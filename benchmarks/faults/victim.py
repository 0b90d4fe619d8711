"""A process that runs a command and, where told so, kills itself in the middle of writing a file.

    python -m benchmarks.faults.victim SCRIPT ARGUMENTS..

runs a script so: with KILL="7 half" in the environment, rank 0 of the first start dies in file number 7.
"""

from __future__ import annotations

import os
import runpy
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, cast

__all__ = ["STAGES", "arm", "work"]

#: Where in the writing of a file: half of it is written; all of it, without a name; it has its name.
STAGES = ("half", "nameless", "named")


def work(task: str, command: str, log: str, write: int | None, stage: str) -> None:
    """Run the command with its output appended to `log`; die at `stage` of file number `write`, counted from 0."""
    from training.config.schema import Task
    from training.experiment import main

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if write is not None:
        arm(write, stage)
    sys.exit(main(cast(Task, task), shlex.split(command)))


def arm(write: int, stage: str) -> None:
    """Have this process die at `stage` of file number `write`, counted from 0."""
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


if __name__ == "__main__":
    first = (os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")) == ("0", "0")
    if first and "KILL" in os.environ:
        number, where = os.environ["KILL"].split()
        arm(int(number), where)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
