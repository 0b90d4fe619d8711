"""The local objectives side by side: accuracy (search, final), what a step costs (costs), and the tables of both."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.__main__ import main as accuracy
from benchmarks.launch import run_jobs
from benchmarks.record import Record
from data.storage.streams import exit_code

from .table import METHODS, MODELS, costs, markdown

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code; `search` and `final` as benchmarks.accuracy has them."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__)
    parser.add_argument("action", choices=["search", "final", "trials", "costs", "table"])
    parser.add_argument("--repeats", type=int, default=3, help="costs: interleaved repetitions of the time (default 3)")
    parser.add_argument("--batches", type=int, default=12, help="costs: batches per measurement (default 12)")
    parser.add_argument("--quick", action="store_true", help="costs: a smoke test: tiny models, one repetition")
    runs = parser.add_argument_group("search, final", "as for benchmarks.accuracy")
    for option in ("--data-root", "--cells", "--method", "--at-once"):
        runs.add_argument(option)
    given = parser.parse_args(words)
    if given.action == "costs":
        print(costs(measure(given, words)))
        return 0
    if given.action == "table":
        path = HERE / "results.json"
        print(markdown(json.loads(path.read_text(encoding="utf-8"))))
        return 0
    others = {
        "--data-root": given.data_root,
        "--cells": given.cells,
        "--method": given.method,
        "--at-once": given.at_once,
    }
    asked = [part for option, value in others.items() if value is not None for part in (option, value)]
    return accuracy([given.action, "--grid", str(HERE / "cpu.json"), "--results", str(HERE / "results.json"), *asked])


def measure(given: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure every method on every model: operations and memory once, as they are always the same, time repeatedly."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    size = "quick" if given.quick else "half"
    repeats = 1 if given.quick else given.repeats
    out = HERE / ("costs.quick.json" if given.quick else "costs.json")
    record = Record(out, "benchmarks.objectives", words, {"size": size, "repeats": repeats, "batches": given.batches})

    def one(repeat: int, model: str, method: str, figure: str) -> dict[str, Any]:
        job = {"model": model, "method": method, "figure": figure, "size": size, "batches": given.batches, "warmup": 2}
        used = cores if figure == "step_s" else cores[:1]
        threads = len(used) if method == "bp" else 1  # a worker of a local method has one
        told = {**job, "cores": used, "threads": threads}
        return run_jobs("benchmarks.objectives.worker", [told], timeout=600)[0]

    cases = [
        {"repeat": repeat, "model": model, "method": method, "figure": figure}
        for repeat in range(repeats)
        for model in MODELS
        for method in METHODS
        for figure in ("step_s", "held_mib")
        if figure == "step_s" or repeat == 0
    ]
    record.take(cases, one)
    return record.finish()


if __name__ == "__main__":
    sys.exit(exit_code(main))
