"""How close to its ceiling the continuous schedule comes, and what a hand-over costs (see README.md)."""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ALPackage import ALStack, make_schedule
from data.storage.streams import exit_code
from training.runs.provenance import collect

from .stages import BALANCE, empty_stack, sleeping_stack, stage_times
from .table import markdown

HERE = Path(__file__).parent
SCHEDULES = ("sequential", "al-fm", "continuous")
STAGES = (2, 4, 8)
#: Batches of the schedules that join at every batch, where nothing depends on how many there are.
JOINED_BATCHES = 60


def seconds_per_batch(schedule: str, stack: ALStack, batches: int) -> float:
    """Train on empty batches under a schedule and return the time per batch, fill and drain included."""
    x = torch.zeros(1)
    with make_schedule(schedule, stack, threads=1) as one:
        for _ in one.run([(x, x)] * 3):  # warm-up: threads are started, code is loaded
            pass
        start = time.perf_counter()
        for _ in one.run((x, x) for _ in range(batches)):
            pass
        return (time.perf_counter() - start) / batches


def bare_queue(stages: int, batches: int) -> float:
    """Return the time per batch of threads that only hand an object on through `queue.Queue`s of depth 2."""
    line: list[queue.Queue[int]] = [queue.Queue(2) for _ in range(stages)]
    line.append(queue.Queue())

    def hand_on(stage: int) -> None:
        for _ in range(batches):
            line[stage + 1].put(line[stage].get())

    threads = [threading.Thread(target=hand_on, args=(stage,)) for stage in range(stages)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    for batch in range(batches):
        line[0].put(batch)
    for _ in range(batches):
        line[-1].get()
    seconds = time.perf_counter() - start
    for thread in threads:
        thread.join()
    return seconds / batches


def efficiency(batches: int, mean: float, repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure the three schedules side by side on sleeping stages, `repeats` times, interleaved."""
    cases = [
        {"stages": stages, "balance": balance, "times": stage_times(stages, mean, balance), "seconds_per_batch": []}
        for stages in STAGES
        for balance in BALANCE
    ]
    for repeat in range(repeats):
        for case in cases:
            stack = sleeping_stack(case["times"])
            counts = {schedule: batches if schedule == "continuous" else JOINED_BATCHES for schedule in SCHEDULES}
            found = {name: seconds_per_batch(name, stack, min(count, batches)) for name, count in counts.items()}
            case["seconds_per_batch"].append(found)
            say(f"repeat {repeat + 1}: {case['stages']} stages, {case['balance']}: " + str(found))
    for case in cases:
        runs = case["seconds_per_batch"]
        case["ceiling"] = sum(case["times"]) / max(case["times"])
        case["speedup"] = {name: statistics.median(run["sequential"] / run[name] for run in runs) for name in SCHEDULES}
        case["efficiency"] = statistics.median(run["sequential"] / run["continuous"] for run in runs) / case["ceiling"]
    return cases


def overhead(batches: int, repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure the time per batch and stage that the whole engine takes on empty stages, beside a bare queue."""
    found = []
    for stages in STAGES:
        runs = []
        for _ in range(repeats):
            engine = seconds_per_batch("continuous", empty_stack(stages), batches)
            bare = bare_queue(stages, batches)
            runs.append({"engine_us": engine / stages * 1e6, "bare_queue_us": bare / stages * 1e6})
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        say(f"{stages} empty stages: {medians}")
        found.append({"stages": stages, "runs": runs, **medians})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__)
    parser.add_argument("--batches", type=int, default=600, help="of the continuous schedule (default: 600)")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="mean time of a stage (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions of the sleeping stages")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    torch.set_num_threads(1)
    results = {
        "command": "python -m benchmarks.schedule " + " ".join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect([torch.device("cpu")]),
        "batches": given.batches,
        "milliseconds": given.milliseconds,
        "repeats": given.repeats,
        "overhead": overhead(2000, 15, say),
        "efficiency": efficiency(given.batches, given.milliseconds / 1e3, given.repeats, say),
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
