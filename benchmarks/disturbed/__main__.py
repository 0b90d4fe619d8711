"""What is left of everyone's speed beside a process that keeps one core busy half of the time (see README.md)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.launch import ROOT
from benchmarks.pipeline.contest import measure, prepare, two_cores
from benchmarks.record import Record, say
from data.storage.streams import exit_code

from .table import CONTESTANTS, markdown

HERE = Path(__file__).resolve().parent
MODELS = ("vgg", "transformer")


@contextmanager
def neighbor(core: int) -> Iterator[dict[str, float]]:
    """Keep `core` busy half of the time; the dict then holds the share of the core that this took."""
    command = [sys.executable, "-m", "benchmarks.disturbed.neighbor", str(core)]
    found: dict[str, float] = {}
    # In a session of its own: Ctrl-C must not end it before this process does.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield found
        finally:
            process.terminate()
            found["neighbor_share"] = float(process.stdout.readline())


def choices(model: str, size: str, cores: list[int], seconds: float, pipeline: Path) -> dict[str, Any]:
    """Return everyone's best setting as ../pipeline found it, and search it where that has not run."""
    if pipeline.exists():
        figures = json.loads(pipeline.read_text(encoding="utf-8")).get(model)
        if figures is not None and figures["settings"]["size"] == size:
            return {"costs": figures["prepared"]["costs"], "choices": figures["prepared"]["choices"]}
    say(f"{model}: {pipeline} has no settings for it, searching them")
    prepared = prepare(model, size, cores, seconds)
    return {"costs": prepared["costs"], "choices": prepared["choices"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure undisturbed and disturbed in turn, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disturbed", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of an undisturbed measurement of DDP, about (default 5)"
    )
    parser.add_argument("--cores", nargs=2, type=int, help="the two cores (default: the first two allowed)")
    parser.add_argument("--pipeline", type=Path, default=HERE.parent / "pipeline" / "results.json")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny models, few batches, one repetition")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    cores = two_cores(given.cores)
    size, repeats = ("quick", 1) if given.quick else ("half", given.repeats)
    out = HERE / "results.quick.json" if given.quick and given.out == HERE / "results.json" else given.out
    settings = {"size": size, "repeats": repeats, "seconds": given.seconds, "cores": cores}
    record = Record(out, "benchmarks.disturbed", words, settings)
    prepared = record.results.setdefault("prepared", {})
    for model in MODELS:
        if model not in prepared:
            prepared[model] = choices(model, size, cores, given.seconds, given.pipeline)
            # Two processes do at most twice what one does: a measurement lasts about as long for everyone.
            batches = (
                4 if given.quick else max(8, round(2 * given.seconds / sum(prepared[model]["costs"]["bp"].values())))
            )
            prepared[model]["batches"] = {"joined": batches, "flowing": 2 * batches}
            record.keep()

    def one(model: str, contestant: str, disturbed: bool, repeat: int) -> dict[str, Any]:
        if not disturbed:
            return measure(model, size, contestant, prepared[model], cores, pinned=False)
        with neighbor(cores[0]) as share:
            found = measure(model, size, contestant, prepared[model], cores, pinned=False)
        return {**found, **share}

    record.take(
        [
            {"repeat": repeat, "model": model, "contestant": contestant, "disturbed": (repeat + turn) % 2 == 1}
            for repeat in range(repeats)
            for model in MODELS
            for contestant in CONTESTANTS
            for turn in range(2)
        ],
        one,
    )
    print(markdown(record.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
