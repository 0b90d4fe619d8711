"""Kill a random process of runs under torchrun, let it start them again, and compare (see README.md). Linux."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from data.storage.streams import exit_code
from training.runs.provenance import collect

from .outcome import differences, outcome
from .table import over_ranks
from .victim import STAGES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EPOCHS = 10
COMMON = f"--method al --limit-train 320 --set epochs={EPOCHS} --set checkpoint_every=3"
VGG = f"cvmain.py digits vgg --set width=0.1 --set train_batch_size=32 {COMMON}"
TEXT = f"--set embedding_dim=16 --set x_hid=16 --set max_len=32 --set batch_size=32 {COMMON}"
#: By name: how many ranks, and the command.
COMMANDS = {
    "digits vgg": (2, VGG),
    "docstrings lstm": (3, f"nlpmain.py docstrings lstm {TEXT}"),
    "digits vgg, 3 ranks": (3, VGG),
    "docstrings transformer": (2, f"nlpmain.py docstrings transformer {TEXT}"),
}
#: The parts of a run. Each gets as many kills as the others, however long it is.
PARTS = ("before", "during", "after")
#: A run that is not done after this many seconds hangs.
HANGING = 240.0


@dataclass
class Run:
    """A run under torchrun, from its start on."""

    name: str
    out: Path
    #: As `KILL` of the victim.
    kill: str = ""

    def __post_init__(self) -> None:
        ranks, command = COMMANDS[self.name]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(ranks),
            "--max-restarts",
            "3",
        ]
        victim = ["--master-port", str(port), "-m", "benchmarks.faults.victim"]
        where = ["--out", str(self.out), "--data-root", str(self.out.parent / "datasets")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"KILL": self.kill} if self.kill else {})}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*torchrun, *victim, *command.split(), *where],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while len(self.ranks()) < ranks and self.process.poll() is None:
            time.sleep(0.01)

    @property
    def log(self) -> Path:
        """What the run prints."""
        return Path(f"{self.out}.log")

    def ranks(self) -> dict[int, int]:
        """Return the processes that there are, by rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError, KeyError, ValueError):
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == self.process.pid and status[0] != "Z":
                    variables = (folder / "environ").read_text().split("\0")
                    told = dict(one.split("=", 1) for one in variables if "=" in one)
                    found[int(told["RANK"])] = int(folder.name)
        return found

    def strike(self, rank: int, part: str, after: float) -> bool:
        """Kill the process of a rank `after` seconds from the beginning of a part; False if there is none any more."""
        while PARTS.index(self.part()) < PARTS.index(part) and self.process.poll() is None:
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(after)
        with suppress(KeyError, ProcessLookupError):
            os.kill(self.ranks()[rank], signal.SIGKILL)
            return True
        return False

    def part(self) -> str:
        """Return where the run is: before, during or after training."""
        table = next(self.out.glob("*.csv"), None)
        rows = len(table.read_text().splitlines()) - 1 if table is not None else 0
        trains = any(self.out.glob("checkpoints/*/*/*.pt"))
        return "after" if rows >= EPOCHS else "during" if trains else "before"

    def wait(self) -> dict[str, float]:
        """Wait for the end and return the seconds of every part. Leaves the program where the run fails."""
        lengths = dict.fromkeys(PARTS, 0.0)
        deadline, last = time.monotonic() + HANGING, time.monotonic()
        while (code := self.process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
            now = time.monotonic()
            lengths[self.part()] += now - last
            last = now
        if code is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if code != 0:
            ended = "it hangs" if code is None else f"exit code {code}"
            raise SystemExit(f"{self.name}: {ended}; {self.log} ends so:\n{self.log.read_text()[-3000:]}")
        return lengths


def killed_run(name: str, out: Path, lengths: dict[str, float], draw: random.Random) -> dict[str, Any] | None:
    """Begin a run, kill one of its processes, wait for its end, and return what was done; None if it came too late."""
    part = draw.choice([*PARTS, "writing"])
    if part == "writing":  # which a random moment would hardly ever meet; rank 0 alone writes
        how = {"rank": 0, "write": draw.randrange(30), "stage": draw.choice(STAGES)}
        run = Run(name, out, f"{how['write']} {how['stage']}")
        run.wait()
        lines = run.log.read_text(encoding="utf-8").splitlines()
        hit = [line.removeprefix("killed: ") for line in lines if line.startswith("killed: ")]
        return {**how, "hit": hit[0], "when": "during"} if hit else None
    rank, after = draw.randrange(COMMANDS[name][0]), draw.uniform(0.0, lengths[part])
    run = Run(name, out)
    struck = run.strike(rank, part, after)
    when = run.part()
    run.wait()
    return {"rank": rank, "part": part, "after": after, "when": when, "hit": ""} if struck else None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, print the table; 1 where a run differs from the one that nobody killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.ranks", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of all commands together (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--out", type=Path, default=HERE / "ranks.json")
    given = parser.parse_args(argv)
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.faults.ranks", *(sys.argv[1:] if argv is None else argv)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect(["cpu"]),
        "commands": {name: {"ranks": ranks, "command": command} for name, (ranks, command) in COMMANDS.items()},
        "runs": [],
    }
    whole: dict[str, tuple[dict[str, Any], dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, name in enumerate(islice(cycle(COMMANDS), given.runs)):
            if name not in whole:
                out = root / f"whole{number}"
                lengths = Run(name, out).wait()
                whole[name] = outcome(out), lengths
            draw = random.Random(f"{given.seed} {name} {number}")
            tries, kill = 0, None
            while kill is None:  # the moment may lie behind the end of the run
                tries += 1
                out = root / f"run{number}try{tries}"
                kill = killed_run(name, out, whole[name][1], draw)
            found = list(differences(whole[name][0], outcome(out)))
            results["runs"].append({"name": name, "number": number, "tries": tries, **kill, "differences": found})
            print(f"{name} {number + 1}: {kill}: {'equal' if not found else found[:3]}", file=sys.stderr, flush=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(over_ranks(results))
    return 1 if any(run["differences"] for run in results["runs"]) else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
