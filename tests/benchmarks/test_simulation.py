"""The simulation from measured costs, and its table; the table of the short trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ALPackage.placement.workload import Load, Workload, read_workload, written
from benchmarks.distributed.accuracy_table import accuracy
from benchmarks.distributed.simulation import by_process, main, many_encoders, simulated_seconds
from tests.benchmarks.made_up import results

ENCODERS = tuple(
    Load(f"encoder_{number}", 0.01, 0.02 * number, 0.001, 0 if number == 3 else 100, 1000) for number in (1, 2, 3)
)
WORKLOAD = Workload(
    (Load("embedding", 0.005, 0.005, 0.001, 100, 50), *ENCODERS),
    (Load("embedding", 0.005, 0.005, 0.001, 100, 50), *ENCODERS, Load("head", 0.001, 0.001, 0.0, 0, 10)),
    rows=64,
)


def test_an_encoder_is_repeated() -> None:
    many = many_encoders(WORKLOAD, 5)
    assert [one.name for one in many.al] == ["embedding", *(f"encoder_{n}" for n in range(1, 6))]
    assert [one.name for one in many.bp] == ["embedding", *(f"encoder_{n}" for n in range(1, 6)), "head"]
    assert many.al[1] == Load("encoder_1", 0.01, 0.04, 0.001, 100, 1000)
    assert [one.sent for one in many.al] == [100, 100, 100, 100, 100, 0]
    assert many.bp[5].sent == 100


def test_two_processes_are_simulated_with_the_cut_that_was_measured() -> None:
    # The embedding and an encoder of 30 ms, beside encoders of 50 and 70.
    assert simulated_seconds("al-ranks", WORKLOAD, {"cut": [2, 2]}, 1e9) == pytest.approx(0.122)
    assert simulated_seconds("ddp", WORKLOAD, {}, 1e9) == pytest.approx((0.162 / 2) + 0.004, rel=1e-3)
    assert simulated_seconds("1f1b", WORKLOAD, {"cut": [2, 3], "micro": 2}, 1e9) == pytest.approx(
        0.122 + 0.122 / 2 + 0.002, rel=1e-3
    )
    choice = {"cut": [1, 1, 1, 2], "schedule": "zero-bubble-v", "micro": 2}
    # There and back: stages 0 and 3 in one process, 1 and 2 in the other.
    assert simulated_seconds("zero-bubble", WORKLOAD, choice, 1e9) == pytest.approx(0.082 + 0.002, rel=1e-3)
    loads, sizes = by_process(WORKLOAD.bp, [1, 1, 1, 2], [0, 1, 1, 0])
    assert [one.name for one in loads] == ["embedding", "encoder_3", "head", "encoder_1", "encoder_2"]
    assert sizes == [3, 2]


def test_the_command_reads_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared: dict[str, Any] = {"workload": written(WORKLOAD), "choices": {"al-cut": {"cut": [2, 2]}}}
    runs = [{"repeat": 0, "contestant": name, "samples_per_s": 500.0} for name in ("al-ranks", "ddp")]
    (tmp_path / "results.json").write_text(json.dumps({"transformer": {"prepared": prepared, "runs": runs}}))
    link = {"bytes_per_s": 1e6, "choices": {"al-ranks": {"ranks": [0, 0, 0, 1]}}}
    slow = {"workload": written(WORKLOAD), "links": {"1 Gbit/s": link}}
    on_links = [{"repeat": 0, "rate": "1 Gbit/s", "contestant": "al-ranks", "samples_per_s": 300.0}]
    (tmp_path / "links.json").write_text(json.dumps({"transformer": {"prepared": slow, "runs": on_links}}))
    slept = {
        "case": "both",
        "milliseconds": 100.0,
        "seconds": 11.0,
        "times": [0.1, 0.2],
        "ranks": [0, 1],
        "replicas": [1, 2],
    }
    (tmp_path / "sleepers.json").write_text(json.dumps({"settings": {"batches": 100}, "runs": [slept]}))
    assert main(["--measured", str(tmp_path), "--out", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert "**simulated** samples/s, batches of 4,096, links of 0.01 Gbit/s (1 Gbit/s)" in shown
    assert [line.split(" | ")[0] for line in shown.splitlines() if "devices |" in line] == [
        "| 8 devices",
        "| 64 devices",
        "| 512 devices",
    ]
    assert "| transformer, 2 processes | AL | 500.0 | 524.6 | 1.05 |" in shown
    assert "| transformer, 2 hosts, 1 Gbit/s | AL | 300.0 | 688.2 | 2.29 |" in shown
    assert "| sleeping layers, both, 100 ms (batches/s) | AL | 9.1 | 10.0 | 1.10 |" in shown
    assert len(read_workload(tmp_path / "transformer48.json").al) == 49


def test_without_costs_one_line_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--measured", str(tmp_path), "--out", str(tmp_path / "out.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_the_table_of_accuracies() -> None:
    runs: list[dict[str, Any]] = [
        {"seed": seed, "case": "digits, VGG", "method": method, "val_acc": value + seed}
        for seed in range(3)
        for method, value in (("bp", 95.0), ("al", 94.0))
    ]
    runs.append({"seed": 0, "case": "digits, VGG", "method": "2bw", "failed": "Traceback\nFloatingPointError: nan"})
    shown = accuracy(results({"epochs": 10, "seeds": 3}, runs))
    assert "after 10 epochs, %: mean of 3 seeds (range) | BP | AL | BP with a delay of one step (2BW) |" in shown
    assert "| digits, VGG | 96.0 (95.0 - 97.0) | 95.0 (94.0 - 96.0) | cannot run: FloatingPointError: nan |" in shown
