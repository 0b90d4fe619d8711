"""Who takes part, and the measurement of one contestant: which processes it has, on which cores, and what counts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.launch import WorkerError, run_jobs

from .search import search
from .workload import batch_size

#: In the order in which they are measured, those that are compared with each other side by side; a run begins with
#: another one in every repetition.
CONTESTANTS = (
    "bp",
    "bp-model-parallel",
    "gpipe",
    "interleaved",
    "1f1b",
    "bp-two-threads",
    "ddp",
    "continuous",
    "al-two-runs",
    "al-cut",
    "al-fm",
    "al-sequential",
)
#: These fill and drain once per run, so they get more batches than those that join at every batch.
FLOWING = ("continuous", "al-cut", "al-ranks", "al-replicas", "2bw")
WARMUP = 2
#: Keep freed memory instead of returning it to the system after every operation; the same for every contestant. As
#: glibc comes, tensors above 32 MB are mapped, and zeroed by the system page by page, each time anew.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}


def two_cores(wanted: list[int] | None) -> list[int]:
    """Return the cores to measure on; ends the command if this process may not use two of them."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = wanted or allowed[:2]
    if len(set(cores)) != 2 or not set(cores) <= set(allowed):
        print(f"error: cores: got {cores}; expected two of {allowed}, which this process may use", file=sys.stderr)
        sys.exit(2)
    return cores


def launch(
    jobs: Sequence[Mapping[str, Any]], *, timeout: float, hosts: Sequence[str] = (), **common: Any
) -> list[dict[str, Any]]:
    """Run the jobs, which all are told what is `common`, at the same time in fresh processes, perhaps on `hosts`."""
    told = [{"warmup": WARMUP, **common, **job} for job in jobs]
    return run_jobs("benchmarks.pipeline.worker", told, timeout=timeout, environment=KEEP_MEMORY, hosts=hosts)


def prepare(
    model: str, size: str, cores: Sequence[int], seconds: float, contestants: Sequence[str] = CONTESTANTS
) -> dict[str, Any]:
    """Measure what the layers cost, search everyone's best setting, and choose how many batches are measured.

    `seconds`: how long a measurement of BP on one core lasts.
    """

    def run(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return launch(jobs, timeout=900, model=model, size=size)

    costs, workload = measure_layers(model, size, cores)
    batches = count_batches(costs, size, seconds)
    choices = search(costs, run, cores, contestants, most=1 if size == "quick" else None)
    return {"costs": costs, "workload": workload, "batches": batches, "choices": choices}


def measure_layers(model: str, size: str, cores: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the seconds per batch of the layers of both forms, by name, and the same in parts, with bytes."""
    job = {"do": "costs", "cores": cores[:1], "batches": 3 if size == "quick" else 8}
    found = launch([job], timeout=900, model=model, size=size)[0]
    return {form: found[form] for form in ("bp", "al")}, found["workload"]


def count_batches(costs: Mapping[str, Mapping[str, float]], size: str, seconds: float) -> dict[str, int]:
    """Return how many batches are measured, by how a contestant goes through them."""
    if size == "quick":
        return {"joined": 3, "flowing": 6}
    joined = max(8, min(60, round(seconds / sum(costs["bp"].values()))))
    return {"joined": joined, "flowing": max(40, 3 * joined)}


def jobs_of(contestant: str, choice: Mapping[str, Any], cores: Sequence[int]) -> list[dict[str, Any]]:
    """Return the jobs of a contestant's processes. `choice`: its best setting, if it has settings."""
    al = {"do": "al", "schedule": "sequential", "placement": None, "options": {}}
    setting = {key: value for key, value in choice.items() if key != "tried"}
    if contestant == "bp":
        return [{"do": "bp", "cores": cores[:1]}]
    if contestant == "bp-two-threads":
        return [{"do": "bp", "cores": cores, "threads": len(cores)}]
    if contestant == "ddp":
        return [{"do": "ddp", "cores": [core]} for core in cores]
    if contestant == "al-sequential":
        return [{**al, "cores": cores[:1]}]
    if contestant == "al-two-runs":
        return [{**al, "cores": [core]} for core in cores]
    if contestant == "al-fm":
        return [{**al, "schedule": "al-fm", "cores": cores}]
    if contestant == "al-cut":
        return [{**al, **setting, "schedule": "continuous", "cores": cores}]
    if contestant == "al-ranks":  # the layers of a worker in al-cut are those of a process here
        ranks = [int(place.removeprefix("cpu:")) for place in setting["placement"]]
        return [{"do": "al-ranks", "ranks_of_layers": ranks, "cores": [core]} for core in cores]
    if contestant == "al-replicas":  # each has all layers, and half of the rows
        return [
            {"do": "al-ranks", "ranks_of_layers": None, "replicas": [len(cores)], "cores": [core]} for core in cores
        ]
    if contestant == "continuous":
        return [{**al, "schedule": "continuous", "options": {"workers": len(cores)}, "cores": cores}]
    return [{"do": "stages", **setting, "cores": [core]} for core in cores]


def measure(
    model: str, size: str, contestant: str, prepared: Mapping[str, Any], cores: Sequence[int], *, pinned: bool = True
) -> dict[str, Any]:
    """Measure one contestant once. `pinned`: each of several processes is tied to a core of its own.

    Two runs at the same time count with the sum of their speeds. Raises WorkerError where it cannot run.
    """
    choice = prepared["choices"].get("al-cut" if contestant == "al-ranks" else contestant, {})
    if "failed" in choice:
        raise WorkerError(choice["failed"])
    batches = prepared["batches"]["flowing" if contestant in FLOWING else "joined"]
    jobs = jobs_of(contestant, choice, cores)
    if not pinned:
        jobs = [{**job, "cores": cores} for job in jobs]
    expected = (batches + WARMUP) * sum(prepared["costs"]["bp"].values())
    done = launch(jobs, timeout=60 + 5 * expected, model=model, size=size, batches=batches)
    found = figures(done, batches, batch_size(model, size))
    if contestant == "al-two-runs":
        alone = [process["stop"] - process["start"] for process in done]
        found["samples_per_s"] = sum(batches * batch_size(model, size) / seconds for seconds in alone)
    return found


def figures(done: Sequence[Mapping[str, Any]], batches: int, rows: int) -> dict[str, Any]:
    """Return what a contestant's processes have found; `rows`: samples per batch."""
    seconds = max(process["stop"] for process in done) - min(process["start"] for process in done)
    found: dict[str, Any] = {
        "samples_per_s": batches * rows / seconds,
        "seconds": seconds,
        "batches": batches,
        "peak_mib": [process["peak_mib"] for process in done],
        "base_mib": [process["base_mib"] for process in done],
    }
    if sent := {edge: size for process in done for edge, size in process.get("sent", {}).items()}:
        found["sent"] = sent
    if "busy" in done[0] and len(done) == 1:
        found["busy_s"] = done[0]["busy"]
    return found
