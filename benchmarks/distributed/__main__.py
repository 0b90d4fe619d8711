"""Train AL over two processes beside two threads with the same layers, and beside what else two processes can do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pipeline.contest import measure, prepare, two_cores
from benchmarks.pipeline.workload import MODELS
from benchmarks.record import Record, say
from data.storage.streams import exit_code

from .table import CONTESTANTS, markdown

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Read the options, measure, and print the tables of all models that are in the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("model", choices=MODELS, help="the others' figures in the results stay as they are")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a measurement of BP on one core (default 6)")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny models, few batches, one repetition")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    cores = two_cores(None)
    size, repeats = ("quick", 1) if given.quick else ("half", given.repeats)
    settings = {"size": size, "repeats": repeats, "seconds": given.seconds, "cores": cores}
    record = Record(given.out, "benchmarks.distributed", words, settings, part=given.model)
    if "prepared" not in record.results:
        say(f"{given.model}: layer costs, then everyone's best setting")
        record.results["prepared"] = prepare(given.model, size, cores, given.seconds, CONTESTANTS)
        record.keep()

    def one(repeat: int, contestant: str) -> dict[str, Any]:
        return measure(given.model, size, contestant, record.results["prepared"], cores)

    record.take(
        [
            {"repeat": repeat, "contestant": CONTESTANTS[(3 * repeat + place) % len(CONTESTANTS)]}
            for repeat in range(repeats)
            for place in range(len(CONTESTANTS))
        ],
        one,
    )
    print(markdown(record.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
