"""Let something go wrong in runs under torchrun, and measure how soon all of their processes end (see README.md)."""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.distributed.cable import Cable, NoCableError
from data.storage.streams import exit_code
from training.runs.provenance import collect

from . import hosts
from .disk import NoDiskError, fill, small_disk
from .faulty import MOMENTS, moment_in
from .run import Run, lives
from .table import ends, in_time

HERE = Path(__file__).parent
COMMAND = "cvmain.py digits vgg --method al --set width=0.1 --limit-train 320 --set train_batch_size=32 --set epochs="
#: Epochs of a run that fails by itself, and of one to which something happens.
SHORT, LONG = 4, 500
#: How many ranks, in turn; of two hosts each has one.
WORLDS = (2, 3)
#: A run that is not over after so many seconds hangs.
HANGING = 90.0
#: By fault in a rank: what the plug-in does there.
IN_A_RANK = {
    "SIGKILL": "SIGKILL",
    "SIGSTOP": "SIGSTOP",
    "exception": "ValueError",
    "out of memory": "MemoryError",
    "Ctrl-C": "SIGINT",
    "SIGTERM": "SIGTERM",
}
TO_TORCHRUN = {"SIGKILL": signal.SIGKILL, "Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@dataclass(frozen=True)
class Case:
    """What goes wrong, where, and in which part of a run."""

    fault: str
    whom: str
    when: str = "during"

    def victim(self, world: int) -> int | None:
        """Return the rank that it happens to, if it is one."""
        return {"rank 0": 0, "host of rank 0": 0, "last rank": world - 1}.get(self.whom)


#: Of the smoke test.
QUICK = (Case("SIGKILL", "last rank"),)


def cases() -> Iterator[Case]:
    """Yield what is measured."""
    for fault in ("SIGKILL", "SIGSTOP"):
        for whom in ("rank 0", "last rank"):
            for when in ("before", "during", "after"):
                yield Case(fault, whom, when)
    for whom, when in (("rank 0", "before"), ("last rank", "during"), ("rank 0", "after")):
        yield Case("exception", whom, when)
    yield Case("out of memory", "last rank")
    yield Case("Ctrl-C", "rank 0")
    yield Case("SIGTERM", "last rank")
    yield Case("full disk", "rank 0")
    for fault in TO_TORCHRUN:
        yield Case(fault, "torchrun")
    yield Case("gone", "host of rank 0")
    yield Case("cut", "cable between two hosts")


def measure(case: Case, world: int, folder: Path) -> dict[str, Any]:
    """Begin a run, let the fault happen, and return how all ended. Raises NoCableError, NoDiskError."""
    with ExitStack() as held:
        runs, moment_of = begin(case, world, folder, held)
        for run in runs:
            held.callback(run.kill)
        ranks = [process for run in runs for process in run.begun().values()]
        moment = moment_of()
        # With two hosts, torchrun looks for the other one for minutes.
        seconds = watch(ranks, runs if len(runs) == 1 else [], moment)
        while stayed := [process for run in runs for process in run.stayed()]:
            if time.monotonic() > moment + HANGING:
                break
            time.sleep(0.1)
        return {
            "ranks": len(ranks),
            "victim": case.victim(len(ranks)),
            "seconds": seconds[: len(ranks)],
            "torchrun_seconds": (seconds[len(ranks) :] or [None])[0],
            "torchrun_code": runs[0].process.poll() if len(runs) == 1 else None,
            "codes": codes_in(runs[0].log),
            "stayed": len(stayed),
            "said": [lines_of(run, rank, folder) for run in runs for rank in range(run.ranks)],
        }


def begin(case: Case, world: int, folder: Path, held: ExitStack) -> tuple[list[Run], Callable[[], float]]:
    """Start what the case needs; return it with what brings the fault about, or waits for it, and tells the moment."""
    out, note, words = folder / "out", folder / "note", f"{COMMAND}{LONG}".split()
    if "host" in case.whom:
        cable = held.enter_context(Cable())
        runs = hosts.begin(cable, folder, words, apart=True)
        how = cable.cut if case.fault == "cut" else lambda: hosts.unplug_the_first(cable, runs)
        return runs, lambda: strike(runs, how)
    if case.whom == "torchrun":
        runs = [Run(words, world, out, apart=True)]
        return runs, lambda: strike(runs, lambda: runs[0].process.send_signal(TO_TORCHRUN[case.fault]))
    if case.fault == "full disk":
        held.enter_context(small_disk(out))
        runs = [Run(words, world, out, apart=True)]
        return runs, lambda: strike(runs, lambda: fill(out))
    rank = case.victim(world) or 0
    fault = f"{rank} {MOMENTS[case.when][min(rank, 1)]} {IN_A_RANK[case.fault]}"
    words = [*f"{COMMAND}{SHORT}".split(), "--plugin", str(HERE / "faulty.py")]
    runs = [Run(words, world, out, variables={"FAULT": fault, "FAULT_NOTE": str(note)}, apart=True)]
    return runs, lambda: wait_for(runs, lambda: moment_in(note))


def strike(runs: Sequence[Run], how: Callable[[], object]) -> float:
    """Bring the fault about once the run trains, and return when that was."""
    wait_for(runs, lambda: 0.0 if runs[0].trains else None)
    moment = time.monotonic()
    how()
    return moment


def wait_for(runs: Sequence[Run], found: Callable[[], float | None]) -> float:
    """Wait until something is there, and return it. Leaves the program where the run ends before."""
    deadline = time.monotonic() + HANGING
    while (value := found()) is None:
        if time.monotonic() > deadline or any(run.process.poll() is not None for run in runs):
            said = "\n".join(run.log.read_text(errors="replace")[-3000:] for run in runs)
            raise SystemExit(f"the fault has not happened; the run ends so:\n{said}")
        time.sleep(0.005)
    return value


def watch(ranks: Sequence[int], runs: Sequence[Run], moment: float) -> list[float]:
    """Return how many seconds after `moment` each of the processes ended, and torchrun in each of the runs."""
    ended: dict[int, float] = {}
    everybody = [*ranks, *(run.process.pid for run in runs)]
    while len(ended) < len(everybody) and (now := time.monotonic() - moment) < HANGING:
        for run in runs:
            run.process.poll()  # what has ended is there until somebody asks
        ended |= {process: now for process in everybody if process not in ended and not lives(process)}
        time.sleep(0.005)
    return [round(ended.get(process, HANGING), 2) for process in everybody]


def lines_of(run: Run, rank: int, folder: Path) -> list[str]:
    """Return what a rank has said, without the names of this machine; of a traceback, the last line."""
    lines = [line.replace(str(folder), "..").replace(f"({socket.gethostname()}", "(host") for line in run.said(rank)]
    return ["(a traceback)", *lines[-1:]] if any("Traceback" in line for line in lines) else lines


def codes_in(log: Path) -> dict[str, int]:
    """Return the exit codes that the summary of torchrun tells, by rank; it leaves out who ended with 0."""
    found = re.findall(r"rank +: (\d+) .*\n +exitcode +: (-?\d+)", log.read_text(errors="replace"))
    return {rank: int(code) for rank, code in found}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, print the table; 1 where a process took longer than it may, or stayed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.ends", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="of every case (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one case, once: whether it works at all")
    parser.add_argument("--out", type=Path, default=HERE / "ends.json")
    given = parser.parse_args(argv)
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.faults.ends", *(sys.argv[1:] if argv is None else argv)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect(["cpu"]),
        "run": f"{COMMAND}{SHORT}",
        "runs": [],
    }
    for repeat in range(1 if given.quick else given.repeats):
        for case in QUICK if given.quick else cases():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = measure(case, WORLDS[repeat % len(WORLDS)], Path(folder))
                except (NoCableError, NoDiskError) as error:
                    found = {"skipped": str(error)}
            results["runs"].append({**asdict(case), "repeat": repeat, **found})
            print(results["runs"][-1], file=sys.stderr, flush=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(ends(results))
    return 0 if all(map(in_time, results["runs"])) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
