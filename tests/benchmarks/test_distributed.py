"""The benchmark over processes: its jobs and its table."""

from __future__ import annotations

from typing import Any

from benchmarks.distributed.table import CONTESTANTS, markdown, targets
from benchmarks.pipeline.contest import jobs_of
from tests.benchmarks.made_up import results, verdicts

CUT = {"cut": [1, 3], "placement": ["cpu:0", "cpu:1", "cpu:1", "cpu:1"]}

ZERO = {"schedule": "zero-bubble-v", "cut": [1, 1, 1, 2], "micro": 4, "tried": []}


def made(**speeds: float) -> dict[str, Any]:
    """Return the figures of a model in which two threads with the same layers do 100 samples/s."""
    found = {"al-cut": 100.0, "continuous": 120.0, "ddp": 110.0, "gpipe": 60.0, "interleaved": 50.0, **speeds}
    runs: list[dict[str, Any]] = [
        {
            "repeat": repeat,
            "contestant": name,
            "samples_per_s": speed * (1 + repeat),
            "peak_mib": [700.0] * (1 if name in ("al-cut", "continuous") else 2),
            **({"sent": {"rank0 to rank1": 8_400_000, "rank1 to rank0": 24}} if name == "al-ranks" else {}),
        }
        for repeat in range(3)
        for name, speed in found.items()
    ]
    runs.append({"repeat": 0, "contestant": "1f1b", "failed": "Traceback\nValueError: no tuples"})
    return results({"repeats": 3}, runs, prepared={"choices": {"al-cut": CUT, "zero-bubble": ZERO}})


def test_a_process_has_the_layers_of_a_thread_and_a_core() -> None:
    jobs = jobs_of("al-ranks", CUT, [3, 5])
    assert [(job["ranks_of_layers"], job["cores"]) for job in jobs] == [([0, 1, 1, 1], [3]), ([0, 1, 1, 1], [5])]


def test_the_table_says_what_processes_cost_and_send() -> None:
    shown = markdown({"vgg": made(**{"al-ranks": 96.0})})
    assert "| **AL, over two processes** | 192.0 (96.0 - 288.0) |  | 8.40 | 1400 (700 + 700) |" in shown
    assert "| AL, two threads with the same layers | 200.0 (100.0 - 300.0) | 0.96 (0.96 - 0.96) |  | 700 |" in shown
    assert "| BP, 1F1B | cannot run: ValueError: no tuples | | | |" in shown
    assert (
        "Per batch AL sends rank0 to rank1 8,400,000 bytes, rank1 to rank0 24 bytes; its processes have 1 and 3 "
        "layers. The fastest settings of the others: zero bubble: stages of 1, 1, 1, 2 layers, in a V, 4 micro-batches."
        in shown
    )


def test_the_target_is_judged_within_a_repetition() -> None:
    what = "vgg: over two processes, of two threads with the same layers"
    assert verdicts(markdown({"vgg": made(**{"al-ranks": 96.0})})) == {what: "met"}
    assert verdicts(markdown({"vgg": made(**{"al-ranks": 94.0})})) == {what: "**missed**"}
    assert targets({"vgg": made()}) == []
    assert set(CONTESTANTS) >= {"al-ranks", "al-cut"}
