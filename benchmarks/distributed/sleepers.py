"""Processes with layers that sleep: how near the schedule over processes comes to its ceiling on any machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.launch import run_jobs
from benchmarks.record import Record
from data.storage.streams import exit_code

from .sleepers_table import ceiling, sleepers

HERE = Path(__file__).resolve().parent
#: One layer without any pipeline: what sleeping and a layer's step cost by themselves.
ALONE = "1 process, 1 layer, no pipeline"
#: By name: the layers' times, in parts of the longest sleep of a process, the rank of each, and each stage's replicas.
CASES: dict[str, dict[str, Any]] = {
    ALONE: {"times": [1], "ranks": [0]},
    "2 processes, balanced": {"times": [1, 1], "ranks": [0, 1]},
    "4 processes, balanced": {"times": [1, 1, 1, 1], "ranks": [0, 1, 2, 3]},
    "3 processes, one slow layer": {"times": [1, 2, 1], "ranks": [0, 1, 2]},
    "4 processes, the slow layer on two of them": {"times": [1, 2, 1], "ranks": [0, 1, 3], "replicas": [1, 2, 1]},
}
#: Rows of a batch.
ROWS = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed.sleepers", description=__doc__)
    parser.add_argument(
        "--milliseconds", type=float, nargs="+", default=[30.0, 100.0], help="of a layer not slow (default: 30 100)"
    )
    parser.add_argument("--batches", type=int, default=200, help="of a run (default: 200)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default: 3)")
    parser.add_argument("--out", type=Path, default=HERE / "sleepers.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: few batches, one repetition")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    batches, repeats = (20, 1) if given.quick else (given.batches, given.repeats)
    settings = {"milliseconds": given.milliseconds, "batches": batches, "repeats": repeats}
    record = Record(given.out, "benchmarks.distributed.sleepers", words, settings)

    def one(repeat: int, milliseconds: float, case: str) -> dict[str, Any]:
        return measure(case, milliseconds / 1e3, batches)

    record.take(
        [
            {"repeat": repeat, "milliseconds": milliseconds, "case": case}
            for repeat in range(repeats)
            for milliseconds in given.milliseconds
            for case in CASES
        ],
        one,
    )
    print(sleepers(record.finish()))
    return 0


def measure(name: str, unit: float, batches: int) -> dict[str, Any]:
    """Return how long a run of a case took. `unit`: seconds that a time of 1 stands for."""
    case = CASES[name]
    times = [unit * time for time in case["times"]]
    world = sum(case["replicas"]) if "replicas" in case else len(set(case["ranks"]))
    options = {key: case[key] for key in ("ranks", "replicas") if key in case}
    how = {"schedule": "sequential"} if name == ALONE else {"schedule": "distributed", "workers": 1, **options}
    job = {"times": times, "rows": ROWS, "batches": batches, "options": how}
    limit = 90 + 5 * batches * max(times)
    seconds = run_jobs("benchmarks.distributed.sleepers_worker", [job] * world, timeout=limit)[0]["seconds"]
    return {"seconds": seconds, "times": times, **options, "of_ceiling": ceiling(times, options) * batches / seconds}


if __name__ == "__main__":
    sys.exit(exit_code(main))
