"""A command under torchrun as one sees it from outside: its processes, and what each of them says. Linux."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Run", "free_port", "lives"]

ROOT = Path(__file__).resolve().parents[2]
#: Marks all processes of a run, whoever their parents are.
MARK = "RUN_OF_FAULTS"


@dataclass
class Run:
    """A run from its start on.

    Attributes:
        command: The program and its arguments, after torchrun's own.
        ranks: How many ranks torchrun starts on this host.
        out: The folder of the results, whose parent holds the data.
        options: More of torchrun's arguments.
        variables: More of the environment.
        inside: What starts torchrun, such as `ip netns exec NAME`.
        apart: Whether each rank has a file of its own for what it says, see `said`; otherwise all is in `log`.
    """

    command: Sequence[str]
    ranks: int
    out: Path
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    inside: Sequence[str] = ()
    apart: bool = False

    def __post_init__(self) -> None:
        where = ["--out", str(self.out), "--data-root", str(self.out.parent / "datasets")]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks)]
        torchrun += [] if "--master-port" in self.options else ["--master-port", str(free_port())]
        torchrun += ["--redirects", "3", "--log-dir", f"{self.out}.logs"] if self.apart else []
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*self.inside, *torchrun, *self.options, *self.command, *where],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", MARK: str(self.out), **self.variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def begun(self) -> dict[int, int]:
        """Wait until all ranks are there, or torchrun has ended, and return their processes, by local rank."""
        while len(found := self.processes()) < self.ranks and self.process.poll() is None:
            time.sleep(0.01)
        return found

    @property
    def log(self) -> Path:
        """What the run prints."""
        return Path(f"{self.out}.log")

    @property
    def trains(self) -> bool:
        """Whether it has begun to train, as one sees from its first checkpoint."""
        return any(self.out.glob("checkpoints/*/*/*.pt"))

    def processes(self) -> dict[int, int]:
        """Return the processes that torchrun has at work now, by local rank."""
        found = {}
        for process, told in _marked(str(self.out)):
            with suppress(OSError, KeyError, ValueError):
                if _parent(process) == self.process.pid:
                    found[int(told["LOCAL_RANK"])] = process
        return found

    def said(self, rank: int) -> list[str]:
        """Return the lines that a rank has written to stderr."""
        [path] = Path(f"{self.out}.logs").glob(f"*/attempt_0/{rank}/stderr.log")
        return path.read_text(errors="replace").splitlines()

    def stayed(self) -> list[int]:
        """Return all processes of the run that there are, but for torchrun."""
        return [process for process, _ in _marked(str(self.out)) if process != self.process.pid]

    def kill(self) -> None:
        """End what there is of the run."""
        for process in (self.process.pid, *self.stayed()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Return a port that nobody has; torchrun's own choice is the same in runs side by side."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lives(process: int) -> bool:
    """Tell whether there is a process with this number, stopped or not."""
    with suppress(OSError):
        return _status(process)[0] not in "ZX"
    return False


def _marked(mark: str) -> list[tuple[int, dict[str, str]]]:
    """Return the processes with this mark, and their environments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (folder / "environ").read_text(errors="replace").split("\0")
            told = dict(one.split("=", 1) for one in variables if "=" in one)
            if told.get(MARK) == mark and lives(int(folder.name)):
                found.append((int(folder.name), told))
    return found


def _parent(process: int) -> int:
    return int(_status(process)[1])


def _status(process: int) -> list[str]:
    """Return what Linux says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
