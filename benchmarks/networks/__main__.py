"""Networks that nobody here wrote, at full size: time and peak memory of a few steps of AL and of BP."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.launch import run_jobs
from benchmarks.record import Record
from data.storage.streams import exit_code

from .families import FAMILIES
from .table import CONTESTANTS, markdown

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything, each time in a fresh process, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="by default all")
    parser.add_argument("--batch", type=int, default=4, help="samples per batch (default 4)")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed (default 4)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before them (default 1)")
    parser.add_argument("--layers", type=int, default=4, help="layers that each network is cut into (default 4)")
    parser.add_argument("--small", action="store_true", help="a smoke test: the small networks of the tests")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    out = HERE / "results.small.json" if given.small and given.out == HERE / "results.json" else given.out
    settings = {key: getattr(given, key) for key in ("batch", "steps", "warmup", "layers", "small")}
    record = Record(out, "benchmarks.networks", words, settings)
    cores = sorted(os.sched_getaffinity(0))[:2]

    def one(network: str, title: str, contestant: str) -> dict[str, Any]:
        return measure(network, contestant, settings, cores)

    record.take(
        [
            {"network": network, "title": FAMILIES[network].title, "contestant": contestant}
            for network in given.networks
            for contestant in CONTESTANTS
        ],
        one,
    )
    print(markdown(record.finish()))
    return 0


def measure(network: str, contestant: str, settings: dict[str, Any], cores: list[int]) -> dict[str, Any]:
    """Measure one network under one contestant in a fresh process: two threads or workers get two cores."""
    two = contestant in ("bp-threads", "al-continuous")
    job = {"network": network, "contestant": contestant, **settings, "cores": cores if two else cores[:1]}
    job["threads"] = 2 if contestant == "bp-threads" else 1
    return run_jobs("benchmarks.networks.worker", [job], timeout=600)[0]


if __name__ == "__main__":
    sys.exit(exit_code(main))
