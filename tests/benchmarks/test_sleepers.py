"""The benchmark of sleeping layers: its layers, its ceiling and its table."""

from __future__ import annotations

import time
from typing import Any

import torch

from ALPackage import ALStack, make_schedule
from benchmarks.distributed.sleepers import CASES
from benchmarks.distributed.sleepers_table import ceiling, sleepers
from benchmarks.schedule.layers import RowSleeper
from tests.benchmarks.made_up import results, verdicts


def test_a_layer_sleeps_for_every_row_forward_and_backward() -> None:
    layer = RowSleeper(0.2, rows=8)
    x, y = torch.zeros(4, 2), torch.zeros(4, 1)
    began = time.perf_counter()
    layer(x, y)
    forward = time.perf_counter() - began
    layer.backward_and_update()
    both = time.perf_counter() - began
    assert forward >= 0.4 * 0.1
    assert both >= 0.1
    assert both < 0.2, "half of the rows take half of the time"


def test_a_schedule_runs_such_layers() -> None:
    stack = ALStack(RowSleeper(0.01, rows=4) for _ in range(2))
    batch = torch.zeros(4, 2), torch.zeros(4, 1)
    with make_schedule("continuous", stack, workers=2) as schedule:
        assert len(list(schedule.run([batch] * 3))) == 3


def test_the_ceiling_is_the_busiest_process() -> None:
    assert ceiling([1, 2, 1], {"ranks": [0, 1, 2]}) == 2
    assert ceiling([1, 2, 1], {"ranks": [0, 0, 1]}) == 3
    assert ceiling([1, 2, 1], {"ranks": [0, 1, 3], "replicas": [1, 2, 1]}) == 1
    assert [ceiling(case["times"], case) for case in CASES.values()] == [1, 1, 1, 2, 1]


def test_the_table_says_what_cannot_run() -> None:
    runs: list[dict[str, Any]] = [
        {
            "repeat": n,
            "milliseconds": 100.0,
            "case": "balanced",
            "seconds": 10.5,
            "times": [0.1, 0.1],
            "ranks": [0, 1],
            "of_ceiling": 10 / 10.5,
        }
        for n in range(2)
    ]
    runs.append({"repeat": 0, "milliseconds": 30.0, "case": "replicas", "failed": "Traceback\nTypeError: no replicas"})
    shown = sleepers(results({"milliseconds": [30.0, 100.0], "batches": 100, "repeats": 2}, runs))
    assert "| balanced | 100 | 9.5 (9.5 - 9.5) | 10.0 | 0.952 (0.952 - 0.952) |" in shown
    assert "| replicas | 30 | cannot run: TypeError: no replicas | | |" in shown
    assert shown.index("| replicas | 30") < shown.index("| balanced | 100")
    assert verdicts(shown) == {"balanced, 100 ms: of the ceiling": "met"}
