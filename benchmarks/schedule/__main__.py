"""How close the continuous schedule comes to what its workers can do, and what the engine costs (see README.md)."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ALPackage import ALStack, make_schedule
from benchmarks.record import Record
from data.storage.streams import exit_code

from .layers import BALANCE, empty_stack, layer_times, sleeping_stack
from .table import markdown, most

HERE = Path(__file__).parent
LAYERS = (2, 4, 8)
#: Of the sleeping layers; those that exceed the layers have nothing to do.
WORKERS = (2, 3, 4, 8)
#: Of the empty layers.
ENGINE_WORKERS = (1, 2, 4, 8)
#: The schedules that join at every batch get this share of the continuous one's time: nothing depends on how many
#: batches they train.
JOINED_SHARE = 0.3


def seconds_per_batch(schedule: str, stack: ALStack, batches: int, **options: Any) -> float:
    """Train on empty batches under a schedule and return the time per batch, fill and drain included."""
    x = torch.zeros(1)
    with make_schedule(schedule, stack, threads=1, **options) as one:
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


def overlap(layers: int, balance: str, seconds: float, milliseconds: float) -> dict[str, Any]:
    """Measure all schedules side by side on layers that sleep, the continuous one for about `seconds` per crew."""
    times = layer_times(layers, milliseconds / 1e3, balance)
    stack = sleeping_stack(times)

    def measured(schedule: str, share: float, speedup: float, **options: Any) -> float:
        batches = max(4, round(share * seconds * speedup / sum(times)))
        return seconds_per_batch(schedule, stack, batches, **options)

    found: dict[str, Any] = {"times": times}
    found |= {name: measured(name, JOINED_SHARE, 1.0) for name in ("sequential", "al-fm")}
    found["continuous"] = {
        str(workers): measured("continuous", 1.0, most(times, workers), workers=workers)
        for workers in WORKERS
        if workers <= layers
    }
    return found


def engine(layers: int, workers: int, batches: int) -> dict[str, Any]:
    """Measure the time per batch and layer that the whole engine takes on layers that do nothing."""
    seconds = seconds_per_batch("continuous", empty_stack(layers), batches, workers=workers)
    return {"engine_us": seconds / layers * 1e6}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.5, help="of a run of the continuous schedule (default: 3.5)")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="mean time of a layer (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions of the sleeping layers")
    parser.add_argument("--batches", type=int, default=1000, help="of empty layers (default: 1000)")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    settings = {key: getattr(given, key) for key in ("seconds", "milliseconds", "repeats", "batches")}
    record = Record(given.out, "benchmarks.schedule", words, settings)
    torch.set_num_threads(1)

    def measure(what: str, repeat: int, layers: int, **case: Any) -> dict[str, Any]:
        if what == "overlap":
            return overlap(layers, case["balance"], given.seconds, given.milliseconds)
        if what == "engine":
            return engine(layers, case["workers"], given.batches)
        return {"bare_queue_us": bare_queue(layers, given.batches) / layers * 1e6}

    cases: list[dict[str, Any]] = []
    for repeat in range(2 * given.repeats + 1):  # these are short
        for layers in LAYERS:
            one = {"repeat": repeat, "layers": layers}
            cases += [{"what": "engine", **one, "workers": workers} for workers in ENGINE_WORKERS]
            cases.append({"what": "bare queue", **one})
    for repeat in range(given.repeats):
        for layers in LAYERS:
            cases += [{"what": "overlap", "repeat": repeat, "layers": layers, "balance": how} for how in BALANCE]
    record.take(cases, measure)
    print(markdown(record.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
