"""How well `--plan` foretells the epochs that follow it (see README.md)."""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from data.storage.streams import exit_code
from training.runs.provenance import collect

from .table import markdown

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: The four models, on data that needs no download, with epochs of some seconds on two cores.
COMMANDS = {
    "VGG": "cvmain.py digits vgg --set width=0.25 --set train_batch_size=64",
    "ResNet": "cvmain.py digits resnet --set width=0.25 --set train_batch_size=64",
    "LSTM": "nlpmain.py docstrings lstm --set embedding_dim=64 --set x_hid=64 --set max_len=64",
    "Transformer": "nlpmain.py docstrings transformer --set embedding_dim=64 --set x_hid=64 --set max_len=64",
}
EXPECTED = re.compile(r"expected training time per epoch: AL ([\d.]+) (s|min|h), BP ([\d.]+) (s|min|h);")
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def run(command: str, *more: str) -> str:
    """Run a command of the project in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, *command.split(), *more], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command} {' '.join(more)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def expected(printed: str) -> dict[str, float]:
    """Return the seconds per epoch that `--plan` has printed, by method."""
    found = EXPECTED.search(printed)
    if found is None:
        raise RuntimeError(f"--plan printed no expectation: {printed}")
    return {"al": float(found[1]) * UNITS[found[2]], "bp": float(found[3]) * UNITS[found[4]]}


def epochs(table: Path) -> list[float]:
    """Return the training time of every epoch from a run's CSV, where it is summed up."""
    with open(table, encoding="utf-8") as file:
        sums = [float(row["train_time"]) for row in csv.DictReader(file)]
    return [after - before for before, after in zip([0.0, *sums], sums, strict=False)]


def compare(command: str, more: Sequence[str]) -> dict[str, Any]:
    """Plan a command, then train two epochs, and return what was expected and what they took."""
    printed = run(command, *more, "--plan")
    foretold = expected(printed)
    with tempfile.TemporaryDirectory() as folder:
        run(command, *more, "--set", "epochs=2", "--out", folder)
        took = {method: epochs(next(Path(folder).glob(f"*_{method}.csv"))) for method in foretold}
    return {"expected": foretold, "epochs": took, "plan": printed.splitlines()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="default: all four")
    parser.add_argument("--repeats", type=int, default=3, help="plans and runs of each model (default: 3)")
    parser.add_argument("--quick", action="store_true", help="128 training samples, to try the script out")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args(argv)
    more = ["--limit-train", "128"] if given.quick else []
    models: dict[str, Any] = {name: {"command": COMMANDS[name], "runs": []} for name in given.models}
    for repeat in range(given.repeats):
        for name, model in models.items():
            model["runs"].append(found := compare(model["command"], more))
            summary = f"expected {found['expected']}, took {found['epochs']}"
            print(f"repeat {repeat + 1}: {name}: {summary}", file=sys.stderr, flush=True)
    results = {
        "command": "python -m benchmarks.plan " + " ".join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect([torch.device("cpu")]),
        "models": models,
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
