"""The best setting of every contestant that has one: which cuts and micro-batch counts are tried, and what wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.launch import WorkerError
from benchmarks.record import say

#: Contestants that are pipelines of BP: their schedules with the stages per process, and micro-batch counts.
PIPELINES: dict[str, tuple[dict[str, int], tuple[int, ...]]] = {
    "bp-model-parallel": ({"gpipe": 1}, (1,)),
    "gpipe": ({"gpipe": 1}, (2, 4, 8)),
    "1f1b": ({"1f1b": 1}, (2, 4, 8)),
    "interleaved": ({"interleaved": 2}, (2, 4, 8)),
    "zero-bubble": ({"zero-bubble": 1, "zero-bubble-v": 2}, (2, 4, 8)),
    "2bw": ({"delayed": 1}, (1, 2, 4, 8)),
}
RANKS = 2
#: A cut whose busier process has this much more to do than that of the best cut cannot win by noise: it is not tried.
HOPELESS = 1.25
#: Batches of a trial, and of the final between the best ones.
TRIAL, FINAL, FINALISTS = 3, 8, 2

Trial = dict[str, Any]
#: Runs jobs at the same time in fresh processes and returns their results.
Launch = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
#: Runs trials of so many batches and returns, for each, what its processes found.
Run = Callable[[Sequence[Trial], int], list[list[dict[str, float]]]]


def cuts(layers: int, stages: int) -> list[list[int]]:
    """Return every way to cut layers into contiguous stages, as layers per stage."""
    if stages == 1:
        return [[layers]] if layers else []
    return [[first, *rest] for first in range(1, layers) for rest in cuts(layers - first, stages - 1)]


def owners(schedule: str, stages: int, ranks: int = RANKS) -> list[int]:
    """Return the process of every stage: in turn, or in a schedule in the form of a V there and back."""
    if schedule.endswith("-v"):
        return [*range(ranks), *reversed(range(ranks))]
    return [stage % ranks for stage in range(stages)]


def busiest(costs: Sequence[float], cut: Sequence[int], schedule: str = "1f1b") -> float:
    """Return what the busier process has to do."""
    work = [0.0] * RANKS
    for stage, owner in enumerate(owners(schedule, len(cut))):
        first = sum(cut[:stage])
        work[owner] += sum(costs[first : first + cut[stage]])
    return max(work)


def trials(contestant: str, costs: Sequence[float]) -> list[Trial]:
    """Return the settings of a pipeline that are worth a trial, from what BP's layers cost."""
    schedules, counts = PIPELINES[contestant]
    possible = [(name, cut) for name, each in schedules.items() for cut in cuts(len(costs), each * RANKS)]
    least = min(busiest(costs, cut, name) for name, cut in possible)
    return [
        {"schedule": name, "cut": cut, "micro": micro}
        for name, cut in possible
        for micro in counts
        if busiest(costs, cut, name) <= HOPELESS * least
    ]


def placements(costs: Sequence[float]) -> list[Trial]:
    """Return the cuts of AL that are worth a trial, as layers tied to workers."""
    possible = cuts(len(costs), RANKS)
    least = min(busiest(costs, cut) for cut in possible)
    good = [cut for cut in possible if busiest(costs, cut) <= HOPELESS * least]
    return [
        {"cut": cut, "placement": [f"cpu:{worker}" for worker in range(RANKS) for _ in range(cut[worker])]}
        for cut in good
    ]


def search(
    costs: Mapping[str, Mapping[str, float]],
    launch: Launch,
    cores: Sequence[int],
    contestants: Sequence[str],
    most: int | None = None,
) -> dict[str, Any]:
    """Return the best setting of every one of the `contestants` that has settings, with all that was tried.

    A contestant that cannot run gets {"failed": why}. `most`: how many settings are tried at most; one needs no trial.
    """
    found: dict[str, Any] = {}
    bp, al = list(costs["bp"].values()), list(costs["al"].values())
    for contestant in (name for name in PIPELINES if name in contestants):
        found[contestant] = _best(contestant, trials(contestant, bp)[:most], _over_processes(launch, cores))

    def alone(tried: Sequence[Trial], batches: int) -> list[list[dict[str, float]]]:
        job = {"do": "search-cuts", "trials": list(tried), "batches": 2 * batches, "warmup": 1, "cores": cores}
        job |= {"schedule": "continuous", "options": {}}
        return [[one] for one in launch([job])[0]["trials"]]

    found["al-cut"] = _best("al-cut", placements(al)[:most], alone)
    return found


def search_pipeline(
    schedule: str, layers: int, micro: Sequence[int], launch: Launch, cores: Sequence[int]
) -> dict[str, Any]:
    """Return the best of all cuts into a stage per process, where it is not the layers alone that cost time."""
    tried = [{"schedule": schedule, "cut": cut, "micro": count} for cut in cuts(layers, RANKS) for count in micro]
    return _best(schedule, tried, _over_processes(launch, cores))


def _over_processes(launch: Launch, cores: Sequence[int]) -> Run:
    """Return what runs trials over processes, one per core."""

    def run(tried: Sequence[Trial], batches: int) -> list[list[dict[str, float]]]:
        job = {"do": "search-stages", "trials": list(tried), "batches": batches, "warmup": 1}
        ranks = launch([{**job, "cores": [core]} for core in cores])
        return [list(of_ranks) for of_ranks in zip(*(rank["trials"] for rank in ranks), strict=True)]

    return run


def _best(contestant: str, tried: list[Trial], run: Run) -> dict[str, Any]:
    """Time all trials briefly and the best of them for longer, and return the winner with the times of all."""
    if len(tried) == 1:
        return {**tried[0], "tried": tried}
    say(f"{contestant}: trying {len(tried)} settings")

    def ranked(entered: list[Trial], batches: int) -> list[Trial]:
        for trial, of_ranks in zip(entered, run(entered, batches), strict=True):
            seconds = max(one["stop"] for one in of_ranks) - min(one["start"] for one in of_ranks)
            trial["seconds_per_batch"] = seconds / batches
        return sorted(entered, key=lambda trial: float(trial["seconds_per_batch"]))

    try:
        best = ranked(ranked(tried, TRIAL)[:FINALISTS], FINAL)[0]
    except WorkerError as error:
        return {"failed": str(error)[-1500:]}
    return {**{key: value for key, value in best.items() if key != "seconds_per_batch"}, "tried": tried}
