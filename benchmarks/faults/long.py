"""Train a tiny model for 2,000 epochs and watch memory, threads and open files of the process."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from data.storage.streams import exit_code
from training import experiment
from training.report.run_log import RunLog
from training.runs.provenance import collect

HERE = Path(__file__).parent
COMMAND = "digits vgg --method al --workers 2 --limit-train 40 --set width=0.05 --set train_batch_size=20"


def state_of_process() -> dict[str, float]:
    """Return the resident memory in MB, the threads and the open files (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "threads": threading.active_count(),
        "threads_of_process": len(os.listdir("/proc/self/task")),
        "open_files": len(os.listdir("/proc/self/fd")),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run, write the JSON and print the samples."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.long", description=__doc__)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="epochs between two samples (default: 100)")
    parser.add_argument("--out", type=Path, default=HERE / "long.json")
    given = parser.parse_args(argv)
    samples: list[dict[str, Any]] = []
    begun = time.monotonic()
    add = RunLog.add

    def watched(self: RunLog, turn: int, epoch: int, **figures: Any) -> None:
        add(self, turn, epoch, **figures)
        if epoch % given.every == 0:
            samples.append({"epoch": epoch, "seconds": round(time.monotonic() - begun, 1), **state_of_process()})
            print(samples[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(RunLog, "add", watched):
        words = [*COMMAND.split(), "--set", f"epochs={given.epochs}", "--out", folder, "--data-root", folder]
        code = experiment.main("vision", words)
    results = {
        "command": " ".join(["python -m benchmarks.faults.long", *(sys.argv[1:] if argv is None else argv)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect(["cpu"]),
        "run": COMMAND,
        "samples": samples,
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    first, last = samples[len(samples) // 4], samples[-1]
    for key in ("memory_mb", "threads", "threads_of_process", "open_files"):
        print(f"{key}: {first[key]} after {first['epoch']} epochs, {last[key]} after {last['epoch']}")
    return code


if __name__ == "__main__":
    sys.exit(exit_code(main))
