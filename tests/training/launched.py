"""Start a command as several processes, as torchrun does, and see how each of them ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.faulty import moment_in
from benchmarks.faults.run import ROOT, free_port

#: A network of 0.5 million weights on 200 images.
SMALL = "digits vgg --method al --set width=0.125 --limit-train 200 --set train_batch_size=32"


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, negative after a signal, what it printed, and how many s after the fault."""

    code: int | None
    text: str
    seconds: float


class Launched:
    """The processes of a command."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], outputs: Sequence[Path]) -> None:
        self.processes, self._outputs = processes, outputs
        self._fault: float | None = None

    def send(self, rank: int, signum: int) -> None:
        """Send a signal to one of them; the first one is the fault."""
        self._fault = self._fault or time.monotonic()
        self.processes[rank].send_signal(signum)

    def wait_for(self, happened: Callable[[], bool], limit: float = 60.0) -> None:
        """Wait until something has happened, which is not the end of a process."""
        deadline = time.monotonic() + limit
        while not happened():
            ended = [process.poll() for process in self.processes]
            texts = "\n".join(output.read_text() for output in self._outputs)
            assert time.monotonic() < deadline, texts
            assert ended == [None] * len(ended), texts
            time.sleep(0.02)

    def ends(self, limit: float = 60.0, note: Path | None = None) -> list[End]:
        """Wait for all of them, and return how they ended. `note`: where the plug-in `faulty` notes the fault.

        Without a fault the seconds are those from now on.
        """
        start = time.monotonic()
        when: dict[int, float] = {}
        while len(when) < len(self.processes) and time.monotonic() < start + limit:
            for rank, process in enumerate(self.processes):
                if process.poll() is not None:
                    when.setdefault(rank, time.monotonic())
            time.sleep(0.02)
        fault = (moment_in(note) if note is not None else self._fault) or start
        return [
            End(process.poll(), output.read_text(), when.get(rank, start + limit) - fault)
            for rank, (process, output) in enumerate(zip(self.processes, self._outputs, strict=True))
        ]


@contextmanager
def launch(
    folder: Path,
    world: int,
    text: str,
    *per_rank: str,
    script: str = "cvmain.py",
    told: Sequence[Mapping[str, object]] = (),
) -> Iterator[Launched]:
    """Start `script` in `world` processes; `per_rank`: what each has besides. They are ended with the block.

    `told`: variables of each process that are others than torchrun would set.
    """
    about = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes, outputs = [], []
    for rank in range(world):
        words = [sys.executable, script, *shlex.split(f"{text} {per_rank[rank] if per_rank else ''}")]
        own = {**about, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        own |= told[rank] if told else {}
        outputs.append(folder / f"rank{rank}.txt")
        with open(outputs[-1], "w") as output:
            processes.append(
                subprocess.Popen(
                    words,
                    cwd=ROOT,
                    env={**os.environ, **{name: str(value) for name, value in own.items()}},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
    try:
        yield Launched(processes, outputs)
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


def epochs_in(out: Path, name: str = "digits_vgg_al") -> int:
    """Return how many epochs the results of a command hold."""
    table = out / f"{name}.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0
