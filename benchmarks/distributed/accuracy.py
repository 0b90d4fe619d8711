"""Short trainings on real data: how accurate AL, BP, and BP with a delay of one step (2BW) are after as many epochs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.launch import run_jobs
from benchmarks.record import Record
from data.storage.streams import exit_code

from .accuracy_table import METHODS, accuracy

HERE = Path(__file__).resolve().parent
#: By name; `cut`: the layers of each of 2BW's two processes. The settings that are not here are the shipped ones.
CASES: dict[str, dict[str, Any]] = {
    "digits, VGG": {
        "task": "vision",
        "dataset": "digits",
        "model": "vgg",
        "settings": ["width=0.25", "train_batch_size=32"],
        "cut": [2, 3],
    },
    "docstrings, Transformer": {
        "task": "text",
        "dataset": "docstrings",
        "model": "transformer",
        "settings": ["pretrained_model=none", "embedding_dim=64", "x_hid=64", "max_len=48"],
        "cut": [2, 3],
    },
}
#: Micro-batches of 2BW.
MICRO = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Train, write the JSON and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed.accuracy", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="of every training (default: 10)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method (default: 3)")
    parser.add_argument("--out", type=Path, default=HERE / "accuracy.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one epoch, one seed, few samples")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    epochs, seeds, limit = (1, 1, 128) if given.quick else (given.epochs, given.seeds, None)
    settings = {"epochs": epochs, "seeds": seeds, "limit_train": limit, "micro": MICRO}
    record = Record(given.out, "benchmarks.distributed.accuracy", words, settings)

    def one(seed: int, case: str, method: str) -> dict[str, Any]:
        job = {**CASES[case], "method": method, "seed": seed, "epochs": epochs, "limit_train": limit, "micro": MICRO}
        processes = 2 if method == "2bw" else 1
        return run_jobs("benchmarks.distributed.accuracy_worker", [job] * processes, timeout=900)[-1]

    record.take(
        [
            {"seed": seed, "case": case, "method": method}
            for seed in range(seeds)
            for case in CASES
            for method in METHODS
        ],
        one,
    )
    print(accuracy(record.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
