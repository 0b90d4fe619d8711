"""What BP and AL give on one GPU: eager, in CUDA graphs, in bfloat16, on one to four streams (see README.md)."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.pipeline.workload import MODELS
from benchmarks.record import Record
from data.storage.streams import exit_code
from utils import set_deterministic

from .table import markdown
from .ways import WAYS, measure

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON after every figure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cpu tries the script out, with small models and no graphs")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2, help="interleaved repetitions of every way")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--minutes", type=float, default=6.5, help="begin no further measurement after so long")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    until = time.monotonic() + 60 * given.minutes
    device = torch.device(given.device)
    on_gpu = device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("error: --device: there is no CUDA device here; --device cpu tries the script out", file=sys.stderr)
        return 2
    if on_gpu:
        set_deterministic()  # as the commands do; else the eager step need not equal itself, and graphs are refused
    size = "full" if on_gpu else "quick"
    settings = {"device": str(device), "steps": given.steps, "repeats": given.repeats, "models": given.models}
    record = Record(given.out, "benchmarks.gpu", words, settings, device=device)

    def one(repeat: int, model: str, way: str) -> dict[str, Any]:
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = measure(model, WAYS[way], size, device, given.steps)
        except Exception as error:  # one way that fails must not cost the others' figures
            return {"failed": f"{type(error).__name__}: {error}"[:500]}
        return {**found, "no_graph": [str(one.message)[:300] for one in said if "no CUDA graph" in str(one.message)]}

    record.take(
        [
            {"repeat": repeat, "model": model, "way": name}
            for repeat in range(given.repeats)
            for model in given.models
            for name, way in WAYS.items()
            if on_gpu or not way.get("graph")
        ],
        one,
        until,
    )
    print(markdown(record.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
