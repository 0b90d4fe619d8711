"""What the activations of AL and BP need: the bytes that autograd holds, peak memory, and the time of a step."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.launch import run_jobs
from benchmarks.record import Record
from data.storage.streams import exit_code

from .table import CONTESTANTS, NETWORKS, markdown

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything, each time in a fresh process, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:0, with the models at full size")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--batches", type=int, default=6, help="batches per measurement (default 6)")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny models, one repetition")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: --device: there is no CUDA device here; leave it out to measure on the CPU", file=sys.stderr)
        return 2
    cores = sorted(os.sched_getaffinity(0))
    size = "quick" if given.quick else "half" if device.type == "cpu" else "full"
    repeats = 1 if given.quick else given.repeats
    out = HERE / "results.quick.json" if given.quick and given.out == HERE / "results.json" else given.out
    settings = {"size": size, "device": str(device), "repeats": repeats, "batches": given.batches}
    record = Record(out, "benchmarks.memory", words, settings, device=device)

    def one(repeat: int, network: str, contestant: str) -> dict[str, Any]:
        return measure(network, contestant, size=size, device=str(device), batches=given.batches, cores=cores)

    record.take(
        [
            {"repeat": repeat, "network": network, "contestant": contestant}
            for repeat in range(repeats)
            for network in NETWORKS
            for contestant in CONTESTANTS
        ],
        one,
    )
    print(markdown(record.finish()))
    return 0


def measure(
    network: str, contestant: str, *, size: str, device: str, batches: int, cores: list[int], warmup: int = 2
) -> dict[str, Any]:
    """Measure one network under one contestant in a fresh process: two workers get two cores, all else gets one."""
    model, keys = NETWORKS[network]
    job = {"model": model, "keys": keys, "contestant": contestant, "size": size, "device": device}
    used = cores if device != "cpu" else cores[:2] if contestant == "al-continuous" else cores[:1]
    told = {**job, "batches": batches, "warmup": warmup, "cores": used}
    return run_jobs("benchmarks.memory.worker", [told], timeout=600)[0]


if __name__ == "__main__":
    sys.exit(exit_code(main))
