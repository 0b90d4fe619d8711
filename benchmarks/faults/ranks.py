"""Kill a random process of runs under torchrun, let it start them again, and compare (see README.md). Linux."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from data.storage.streams import exit_code
from training.runs.provenance import collect

from .outcome import differences, outcome
from .run import Run
from .table import over_ranks
from .victim import STAGES

HERE = Path(__file__).parent
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


def begin(name: str, out: Path, kill: str = "") -> Run:
    """Start a command; `kill`: as `KILL` of the victim."""
    ranks, command = COMMANDS[name]
    victim = ["-m", "benchmarks.faults.victim", *command.split()]
    run = Run(victim, ranks, out, ["--max-restarts", "3"], {"KILL": kill} if kill else {})
    run.begun()
    return run


def strike(run: Run, rank: int, part: str, after: float) -> bool:
    """Kill the process of a rank `after` seconds from the beginning of a part; False if there is none any more."""
    while PARTS.index(part_of(run)) < PARTS.index(part) and run.process.poll() is None:
        time.sleep(0.01)
    with suppress(subprocess.TimeoutExpired):
        run.process.wait(after)
    with suppress(KeyError, ProcessLookupError):
        os.kill(run.processes()[rank], signal.SIGKILL)
        return True
    return False


def part_of(run: Run) -> str:
    """Return where the run is: before, during or after training."""
    table = next(run.out.glob("*.csv"), None)
    rows = len(table.read_text().splitlines()) - 1 if table is not None else 0
    return "after" if rows >= EPOCHS else "during" if run.trains else "before"


def wait(name: str, run: Run) -> dict[str, float]:
    """Wait for the end and return the seconds of every part. Leaves the program where the run fails."""
    lengths = dict.fromkeys(PARTS, 0.0)
    deadline, last = time.monotonic() + HANGING, time.monotonic()
    while (code := run.process.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
        now = time.monotonic()
        lengths[part_of(run)] += now - last
        last = now
    if code is None:
        run.kill()
    if code != 0:
        ended = "it hangs" if code is None else f"exit code {code}"
        raise SystemExit(f"{name}: {ended}; {run.log} ends so:\n{run.log.read_text()[-3000:]}")
    return lengths


def killed_run(name: str, out: Path, lengths: dict[str, float], draw: random.Random) -> dict[str, Any] | None:
    """Begin a run, kill one of its processes, wait for its end, and return what was done; None if it came too late."""
    part = draw.choice([*PARTS, "writing"])
    if part == "writing":  # which a random moment would hardly ever meet; rank 0 alone writes
        how = {"rank": 0, "write": draw.randrange(30), "stage": draw.choice(STAGES)}
        run = begin(name, out, f"{how['write']} {how['stage']}")
        wait(name, run)
        lines = run.log.read_text(encoding="utf-8").splitlines()
        hit = [line.removeprefix("killed: ") for line in lines if line.startswith("killed: ")]
        return {**how, "hit": hit[0], "when": "during"} if hit else None
    rank, after = draw.randrange(COMMANDS[name][0]), draw.uniform(0.0, lengths[part])
    run = begin(name, out)
    struck = strike(run, rank, part, after)
    when = part_of(run)
    wait(name, run)
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
                lengths = wait(name, begin(name, out))
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
