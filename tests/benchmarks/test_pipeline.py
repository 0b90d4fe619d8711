"""The pipeline's search, its jobs and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from benchmarks.launch import WorkerError
from benchmarks.pipeline.contest import CONTESTANTS, jobs_of
from benchmarks.pipeline.search import FINAL, PIPELINES, busiest, cuts, placements, search, trials
from benchmarks.pipeline.table import TITLES, markdown, summary, targets
from benchmarks.pipeline.workload import MODELS, al_model, bp_layers, make_batches
from tests.benchmarks.made_up import results, verdicts

COSTS = {"bp": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "head": 0.1}, "al": {"a": 1.0, "b": 1.0, "c": 0.2}}


def test_cuts_are_contiguous_and_complete() -> None:
    assert cuts(4, 2) == [[1, 3], [2, 2], [3, 1]]
    assert cuts(4, 3) == [[1, 1, 2], [1, 2, 1], [2, 1, 1]]
    assert cuts(3, 1) == [[3]]


def test_stages_go_to_processes_in_turn() -> None:
    assert busiest([1.0, 2.0, 4.0, 8.0], [2, 2]) == 12.0
    assert busiest([1.0, 2.0, 4.0, 8.0], [1, 1, 1, 1]) == 10.0  # stages 1 and 3 against 0 and 2
    assert busiest([1.0, 2.0, 4.0, 8.0], [1, 1, 1, 1], "zero-bubble-v") == 9.0  # stages 0 and 3 against 1 and 2


def test_cuts_that_cannot_win_are_not_tried() -> None:
    costs = list(COSTS["bp"].values())
    assert {tuple(trial["cut"]) for trial in trials("1f1b", costs)} == {(2, 3)}
    assert {trial["micro"] for trial in trials("1f1b", costs)} == {2, 4, 8}
    assert {trial["micro"] % 2 for trial in trials("interleaved", costs)} == {0}
    assert {len(trial["cut"]) for trial in trials("interleaved", costs)} == {4}
    assert {(trial["schedule"], len(trial["cut"])) for trial in trials("zero-bubble", costs)} == {
        ("zero-bubble", 2),
        ("zero-bubble-v", 4),
    }
    assert [trial["placement"] for trial in placements([1.0, 1.0, 0.2])] == [["cpu:0", "cpu:1", "cpu:1"]]


def test_the_search_takes_what_is_fastest_in_the_final_and_tells_what_cannot_run() -> None:
    def launch(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if jobs[0]["trials"][0].get("schedule") == "interleaved":
            raise WorkerError("no such operator")
        times = []
        for trial in jobs[0]["trials"]:
            micro = trial.get("micro", 1)
            # Two micro-batches are the fastest at first, four of them in the final.
            seconds = {2: 1.0, 4: 1.1, 8: 3.0}.get(micro, 1.0)
            times.append(0.5 if jobs[0]["batches"] == FINAL and micro == 4 else seconds * jobs[0]["batches"])
        return [{"trials": [{"start": 0.0, "stop": time} for time in times]} for _ in jobs]

    found = search(COSTS, launch, [0, 1], ["1f1b", "interleaved"])
    assert found["1f1b"]["micro"] == 4
    assert len(found["1f1b"]["tried"]) == 3
    assert found["interleaved"] == {"failed": "no such operator"}
    assert set(found) == {"1f1b", "interleaved", "al-cut"}
    assert found["al-cut"]["placement"] == ["cpu:0", "cpu:1", "cpu:1"]


def test_a_single_setting_needs_no_trial() -> None:
    def launch(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        raise AssertionError(f"tried {jobs}")

    found = search(COSTS, launch, [0, 1], list(PIPELINES), most=1)
    assert set(found) == {*PIPELINES, "al-cut"}
    assert found["2bw"] == {"schedule": "delayed", "cut": [2, 3], "micro": 1, "tried": found["2bw"]["tried"]}


def test_every_contestant_has_jobs_on_the_cores_that_it_may_use() -> None:
    stages = {"schedule": "1f1b", "cut": [2, 3], "micro": 4, "tried": []}
    for contestant in CONTESTANTS:
        jobs = jobs_of(contestant, stages if contestant in PIPELINES else {}, [3, 5])
        cores = [core for job in jobs for core in job["cores"]]
        assert cores == ([3] if contestant in ("bp", "al-sequential") else [3, 5])
    assert jobs_of("bp-two-threads", {}, [3, 5])[0]["threads"] == 2
    assert "tried" not in jobs_of("1f1b", stages, [3, 5])[0]
    assert set(TITLES) == {*CONTESTANTS, *PIPELINES}


@pytest.mark.parametrize("model", MODELS)
def test_the_forms_of_a_model_fit_its_data(model: str) -> None:
    stack = al_model(model, "quick")
    layers = [layer for _, layer in bp_layers(model, "quick")]
    (x, labels), *_ = make_batches(model, "quick", count=1)
    (half, _), *_ = make_batches(model, "quick", count=1, share=2, part=1)
    parts = zip(x, half, strict=True) if isinstance(x, tuple) else [(x, half)]
    assert all(torch.equal(whole[len(whole) // 2 :], part) for whole, part in parts)
    with torch.no_grad():
        assert len(stack.inference(x)) == len(labels)
        for layer in layers:
            x = layer(x)
    assert len(x) == len(labels)


def made(**speeds: float) -> dict[str, Any]:
    """Return the figures of a model in which AL's continuous schedule does 100 samples/s."""
    usual = {"1f1b": 50.0, "ddp": 90.0, "bp-two-threads": 80.0, "al-two-runs": 100.0, "al-sequential": 52.0, "bp": 50.0}
    found = {"continuous": 100.0, **usual, **{name.replace("_", "-"): speed for name, speed in speeds.items()}}
    runs = [
        {
            "repeat": repeat,
            "contestant": name,
            "samples_per_s": speed * (1 + repeat),  # the machine gets faster: ratios within a repetition do not change
            "seconds": 10.0,
            "peak_mib": [700.0] * (2 if name == "ddp" else 1),
            "base_mib": [600.0],
            **({"busy_s": 19.0} if name == "continuous" else {}),
        }
        for repeat in range(3)
        for name, speed in found.items()
    ]
    runs.append({"repeat": 0, "contestant": "interleaved", "failed": "Traceback\nValueError: no tuples"})
    choices = {"1f1b": {"schedule": "1f1b", "cut": [2, 3], "micro": 4}, "interleaved": {"failed": "no tuples"}}
    prepared = {"costs": COSTS, "batches": {"joined": 20, "flowing": 60}, "choices": choices}
    return results({"size": "half", "repeats": 3, "cores": [0, 1]}, runs, prepared=prepared)


def test_targets_that_are_met() -> None:
    found = {model: made() for model in MODELS}
    assert all(target.met for target in targets(found))
    assert len(targets(found)) == 4 + 2 + 4 + 4 + 1
    shown = markdown(found)
    assert "| **AL, continuous** | 200.0 (100.0 - 300.0) |  | 700 | any layer on either of two workers |" in shown
    assert (
        "| BP, 1F1B | 100.0 (50.0 - 150.0) | 2.00 (2.00 - 2.00) | 700 | stages of 2, 3 layers, 4 micro-batches |"
        in shown
    )
    assert "| BP, interleaved 1F1B | cannot run | | | ValueError: no tuples |" in shown
    assert "1400 (700 + 700)" in shown
    assert "Estimated speed-up of AL on two workers: 2.00x" in shown
    assert "| BP, DDP | 180.0 (1.11x) | 180.0 (1.11x) | 180.0 (1.11x) | 180.0 (1.11x) |" in summary(found)


def test_targets_that_are_missed_say_what_the_two_cores_can_do() -> None:
    found = {model: made() for model in MODELS}
    found["vgg"] = made(ddp=125.0, al_two_runs=110.0)
    found["lstm"] = made(ddp=125.0, al_sequential=49.0, bp_two_threads=130.0)
    said = verdicts(markdown(found))
    assert said["vgg: continuous over BP with both cores at its faster, DDP"] == (
        "**missed**; two AL runs at the same time over it: 0.880"
    )
    assert said["vgg: continuous over two sequential runs at the same time"] == (
        "**missed**; its workers were idle 5.0 % of the time, fill and drain included"
    )
    assert said["lstm: continuous over BP with both cores at its faster, two intra-op threads"].startswith("**missed**")
    assert said["lstm: AL, sequential, over BP, both on one core"] == "**missed**"
    assert said["models in which continuous is ahead of the faster of DDP and BP with two threads"] == "**missed**"
    assert said["resnet: continuous over two sequential runs at the same time"] == "met"
