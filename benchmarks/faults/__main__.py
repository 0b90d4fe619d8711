"""Kill runs with SIGKILL at random moments, go on until they are done, and compare (see README.md)."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from data.storage.streams import exit_code
from training.runs.provenance import collect

from .outcome import differences, outcome
from .table import markdown
from .victim import STAGES, work

HERE = Path(__file__).parent
COMMON = "--method al --schedule continuous --workers 2 --set epochs=3 --set checkpoint_every=3"
COMMANDS = {
    "digits vgg": ("vision", f"digits vgg --limit-train 320 --set width=0.1 --set train_batch_size=32 {COMMON}"),
    "docstrings lstm": (
        "text",
        "docstrings lstm --limit-train 320 --set embedding_dim=16 --set x_hid=16 --set max_len=32 "
        f"--set batch_size=32 {COMMON}",
    ),
}
#: How often a run is killed before it may come to its end.
KILLS = 3
#: A run that is not done after this many seconds hangs.
HANGING = 300.0


class Victims:
    """Starts processes that have the libraries loaded, so that a run costs its own time only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload(
            [
                "benchmarks.faults.victim",
                "training.experiment",
                "data.vision.load",
                "data.text.load",
                "training.runs.method",
            ]
        )

    def run(
        self, name: str, out: Path, more: str = "", *, after: float = HANGING, write: int | None = None, stage: str = ""
    ) -> tuple[int, float]:
        """Run the command until it ends, kills itself or `after` seconds are over; return exit code and time."""
        task, command = COMMANDS[name]
        command = f"{command} --data-root {self._root / 'datasets'} --out {out} {more}"
        process = self._fork.Process(target=work, args=(task, command, str(out) + ".log", write, stage))
        begun = time.monotonic()
        process.start()
        process.join(after)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode not in (0, -9):
            raise SystemExit(f"{name}: exit code {process.exitcode}; see {out}.log")
        return int(process.exitcode), time.monotonic() - begun


def killed_run(victims: Victims, name: str, out: Path, length: float, draw: random.Random) -> dict[str, Any]:
    """Begin a run, kill it up to `KILLS` times, let it come to its end, and return what happened."""
    kills: list[dict[str, Any]] = []
    more = ""
    for _ in range(KILLS):
        how: dict[str, Any] = {"after": draw.uniform(0.0, length)}
        if draw.random() < 0.5:
            # A checkpoint of four layers is five files, an epoch's results are two; pictures are not written this way.
            how = {"write": draw.randrange(50), "stage": draw.choice(STAGES)}
        code, seconds = victims.run(name, out, more, **how)
        log = Path(f"{out}.log").read_text(encoding="utf-8").splitlines()
        hit = log[-1].removeprefix("killed: ") if "write" in how and code and log else ""
        kills.append({**how, "killed": code != 0, "seconds": seconds, "hit": hit})
        more = "--resume"
    code, _ = victims.run(name, out, more)
    if code:
        raise SystemExit(f"{name}: it hangs; see {out}.log")
    return {"kills": kills, "processes": KILLS + 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, print the table; 1 where a run differs from the one that nobody killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="of each command (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args(argv)
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.faults", *(sys.argv[1:] if argv is None else argv)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect(["cpu"]),
        "commands": {name: command for name, (_, command) in COMMANDS.items()},
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        victims = Victims(root)
        for name in COMMANDS:
            stem = name.replace(" ", "_")
            victims.run(name, root / f"{stem}_first")  # fills the cache of the data, which later runs find
            _, length = victims.run(name, root / f"{stem}_whole")
            whole = outcome(root / f"{stem}_whole")
            for number in range(given.runs):
                draw = random.Random(f"{given.seed} {name} {number}")
                out = root / f"{stem}_{number}"
                run = killed_run(victims, name, out, length, draw)
                found = list(differences(whole, outcome(out)))
                results["runs"].append({"name": name, "number": number, **run, "differences": found})
                print(f"{name} {number + 1}: {'equal' if not found else found[:3]}", file=sys.stderr, flush=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    return 1 if any(run["differences"] for run in results["runs"]) else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
