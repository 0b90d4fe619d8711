"""Simulations of many devices, beside small cases that were computed by hand."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from ALPackage.errors import PlacementError
from ALPackage.placement.__main__ import main
from ALPackage.placement.rivals import best_pipeline, ddp, one_f_one_b, zero_bubble
from ALPackage.placement.scale import al_seconds, best_al
from ALPackage.placement.workload import Load, Workload, all_reduce, read_workload, written

#: s, s, s, bytes, bytes
LOADS = (Load("a", 1, 2, 0.1, sent=10, weights=4), Load("b", 2, 4, 0.2, sent=5, weights=8), Load("c", 1, 2, 0.1, 0, 4))


def test_al_takes_what_its_slowest_stage_or_link_takes() -> None:
    assert al_seconds(LOADS, [3], [1], speed=1.0) == pytest.approx(12.4)
    assert al_seconds(LOADS, [1, 2], [1, 1], speed=1e9) == pytest.approx(6 + 3 + 0.2 + 0.1)
    assert al_seconds(LOADS, [1, 2], [1, 1], speed=1.0) == pytest.approx(10.0), "the link"
    # Two replicas of the second layer: half of the rows each, and 8 bytes averaged: each sends 2 * 1/2 * 8 of them.
    assert al_seconds(LOADS, [1, 1, 1], [1, 2, 1], speed=100.0) == pytest.approx(max(3.1, 3 + 0.2 + 0.08, 3.1))
    # Two replicas have two links: 10 bytes arrive over them.
    assert al_seconds(LOADS, [1, 1, 1], [2, 2, 2], speed=1.0) == pytest.approx(max(1.5 + 0.1 + 4, 3 + 0.2 + 8, 5))


def test_the_ring() -> None:
    assert all_reduce(100.0, 1, 10.0) == 0.0
    assert all_reduce(100.0, 4, 10.0) == pytest.approx(15.0)


@pytest.mark.parametrize("speed", [1e9, 20.0, 2.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_al_is_the_best_of_all(speed: float, seed: int) -> None:
    draw = random.Random(seed)
    loads = [
        Load(str(n), draw.random(), draw.random(), draw.random() / 10, draw.randrange(9), draw.randrange(9))
        for n in range(4)
    ]
    for devices in range(1, 8):
        every = [
            al_seconds(loads, sizes, replicas, speed)
            for stages in range(1, 5)
            for sizes in itertools.product(range(1, 5), repeat=stages)
            if sum(sizes) == 4
            for replicas in itertools.product(range(1, devices + 1), repeat=stages)
            if sum(replicas) <= devices
        ]
        found = best_al(loads, devices, speed, rows=64)
        assert sum(found.replicas) <= devices
        assert found.seconds == pytest.approx(min(every), rel=1e-5)


def test_replicas_need_a_row_each() -> None:
    assert sum(best_al(LOADS, 1000, 1e9, rows=2).replicas) <= 6
    with pytest.raises(PlacementError, match="at least 1"):
        best_al(LOADS, 0, 1.0, 1)


def test_a_pipeline_of_bp_has_a_bubble() -> None:
    # Stages of 3 and 9 s: 4 steps of 9/4 s, one of fill and drain, and the update.
    assert one_f_one_b(LOADS, [1, 2], 1, 4, speed=1e9) == pytest.approx(9 + 9 / 4 + 0.3)
    # 10 bytes a batch at 10 bytes/s: a micro-batch passes the link in 0.25 s, once down and once up in the bubble.
    assert one_f_one_b(LOADS, [1, 2], 1, 4, speed=10.0) == pytest.approx(9 + 9 / 4 + 2 * 0.25 + 0.3)
    assert one_f_one_b(LOADS, [1, 2], 1, 4, speed=1.0) == pytest.approx(10 + (9 + 20) / 4 + 0.3), "the link is slower"
    # Two such pipelines: half of the rows each, and the second stage's 12 bytes averaged.
    assert one_f_one_b(LOADS, [1, 2], 2, 4, speed=1e3) == pytest.approx(4.5 + (4.5 + 2 * 0.005) / 4 + 0.3 + 0.012)
    assert zero_bubble(LOADS, [1, 2], 1, speed=1e9) == pytest.approx(9.3)
    assert zero_bubble(LOADS, [1, 2], 1, speed=1.0) == pytest.approx(10.3)


def test_the_best_pipeline_has_as_many_micro_batches_as_its_rows_allow() -> None:
    found = best_pipeline(LOADS, 2, 1e9, rows=64, least_rows=8)
    assert (found.sizes, found.replicas, found.micro) == ((1, 2), 1, 8)
    assert found.seconds == pytest.approx(9 + 9 / 8 + 0.3)
    assert best_pipeline(LOADS, 8, 1e9, rows=8, least_rows=8).replicas == 1
    assert best_pipeline(LOADS, 1, 1e9, rows=64).sizes == (3,)
    assert best_pipeline(LOADS, 4, 1e9, rows=64, bubble=False).seconds < found.seconds


def test_ddp_averages_all_weights_behind_its_backward_pass() -> None:
    assert ddp(LOADS, 1, 1.0, rows=8) == pytest.approx(12.4)
    assert ddp(LOADS, 4, 1e9, rows=8) == pytest.approx(3 + 0.4)
    assert ddp(LOADS, 4, 1.0, rows=8) == pytest.approx(1 + 2 * 3 / 4 * 16 + 0.4), "8 s of backward hide no 24"
    assert ddp(LOADS, 64, 1e9, rows=8) == ddp(LOADS, 8, 1e9, rows=8)


def test_more_rows_mean_more_work_and_messages_but_the_same_update() -> None:
    twice = Workload(LOADS, LOADS, 64).with_rows(128)
    assert twice.al[0] == Load("a", 2, 4, 0.1, 20, 4)
    assert twice.rows == 128


def test_a_file_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "work.json"
    layers = [{"name": str(n), "forward_ms": 10, "backward_ms": 20, "sent_bytes": 1000} for n in range(4)]
    path.write_text(json.dumps({"rows": 10, "al": layers}))
    assert main(["--workload", str(path), "--devices", "1", "4", "--rows", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Simulated samples/s with batches of 100 over links of 10 Gbit/s; one device: AL 83.33")
    assert lines[2].split()[:5] == ["1", "83.33", "83.33", "83.33", "83.33"]
    assert lines[3].split()[:2] == ["4", "333.3"]
    assert "A simulation, not a measurement" in lines[-1]
    workload = read_workload(path)
    path.write_text(json.dumps(written(workload)))
    assert read_workload(path) == workload


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"rows": 1, "al": []}', "it has no layers or no rows"),
        ('{"rows": 1, "al": [{"name": "a", "forward_ms": 1}]}', "no 'backward_ms'"),
        (
            '{"rows": 1, "al": [{"name": "a", "forward_ms": 1, "backward_ms": -1}]}',
            "layer 'a': expected finite",
        ),
    ],
)
def test_a_file_that_holds_no_workload_is_named(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert main(["--workload", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --workload: {path}: ")
    assert words in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("given", [["--link-gbit", "0"], ["--devices", "0"], ["--rows", "-1"]])
def test_numbers_have_to_be_above_0(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "work.json"
    path.write_text(json.dumps(written(Workload(LOADS, LOADS, 8))))
    assert main(["--workload", str(path), *given]) == 2
    assert "expected numbers above 0" in capsys.readouterr().err
