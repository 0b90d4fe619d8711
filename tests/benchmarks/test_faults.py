"""The kill benchmark sees what differs and kills where it says; a run that is killed ends as one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults import __main__ as faults
from benchmarks.faults import ends, ranks, table
from benchmarks.faults.outcome import differences
from benchmarks.faults.table import in_time, markdown, over_ranks, told
from benchmarks.faults.victim import STAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ({"a": [1, "x"]}, {"a": [1, "x"]}, []),
        ({"a": 1}, {"a": 1, "b": 2}, ["/b is in one of them only"]),
        ({"a": 1}, {"a": 1.0}, ["/a: 1 and 1.0"]),
        ([1, 2], [1], [": 2 and 1 entries"]),
        ({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 2.0000002])}, ["/w: the tensors differ"]),
        ({"w": torch.tensor([1.0])}, {"w": torch.tensor([1.0], dtype=torch.float64)}, ["/w: the tensors differ"]),
        ({"w": torch.tensor([1.0])}, {"w": 1.0}, ["/w: tensor([1.]) and 1.0"]),
    ],
)
def test_whatever_differs_is_seen(one: Any, two: Any, words: list[str]) -> None:
    assert list(differences(one, two)) == words


@pytest.mark.parametrize("stage", STAGES)
def test_a_victim_dies_in_the_middle_of_a_file(stage: str, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from benchmarks.faults.victim import arm
from data.storage.files import atomic_write_text
arm(1, {stage!r})
for number in range(3):
    atomic_write_text(Path({str(tmp_path)!r}) / "a.json", str(number) * 10)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert done.stdout == f"killed: {stage} .json\n"
    assert (tmp_path / "a.json").read_text() == ("1" if stage == "named" else "0") * 10
    left = [path.read_text() for path in tmp_path.glob(".*")]
    assert left == {"half": ["1" * 5], "nameless": ["1" * 10], "named": []}[stage]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_a_run_that_is_killed_ends_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(faults, "COMMANDS", {"digits vgg": faults.COMMANDS["digits vgg"]})
    out = tmp_path / "results.json"
    assert faults.main(["--runs", "2", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert [run["differences"] for run in results["runs"]] == [[], []]
    assert any(kill["killed"] for run in results["runs"] for kill in run["kills"])
    assert markdown(results) in capsys.readouterr().out


def test_the_table_counts() -> None:
    kills = [{"killed": True, "hit": "half .pt"}, {"killed": True, "hit": ""}, {"killed": False, "hit": ""}]
    runs = [{"name": "digits vgg", "kills": kills, "processes": 4, "differences": found} for found in ([], ["x"])]
    assert markdown({"runs": runs}).splitlines()[-1] == "| digits vgg | 2 | 1 of 2 | 4 | 2 (2 .pt) | 8 |"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks' processes as Linux shows them")
@pytest.mark.timeout(300)
def test_a_run_of_which_a_rank_is_killed_ends_as_one_that_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ranks.json"
    assert ranks.main(["--runs", "1", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert [run["differences"] for run in results["runs"]] == [[]]
    assert over_ranks(results) in capsys.readouterr().out


def test_the_table_over_ranks_counts() -> None:
    commands = {"digits vgg, 3 ranks": {"ranks": 3}, "docstrings lstm": {"ranks": 2}}
    kills = [{"rank": 0, "when": "during", "hit": "half .pt"}, {"rank": 2, "when": "before", "hit": ""}]
    runs = [
        {"name": "digits vgg, 3 ranks", **kill, "differences": found}
        for kill, found in zip(kills, ([], ["x"]), strict=True)
    ]
    assert over_ranks({"commands": commands, "runs": runs}).splitlines()[2:] == [
        "| digits vgg | 3 | 2 | 1 of 2 | rank 0: 1, rank 2: 1 | 1, 1, 0 | 1 .pt |"
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks' processes as Linux shows them")
def test_what_happens_to_a_rank_ends_all_and_each_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ends.json"
    assert ends.main(["--quick", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    [run] = results["runs"]
    assert (run["codes"], run["torchrun_code"], run["stayed"]) == ({"0": 1, "1": -9}, 1, 0)
    assert 0.0 <= run["seconds"][1] <= run["seconds"][0] <= run["torchrun_seconds"]
    assert told(run)
    assert table.ends(results) in capsys.readouterr().out


def test_the_table_of_ends_has_the_slowest_and_says_what_is_not_as_promised() -> None:
    run = {"fault": "SIGKILL", "whom": "last rank", "when": "after", "victim": 1, "torchrun_seconds": 3.0, "stayed": 0}
    run |= {"torchrun_code": 1, "codes": {"0": 1, "1": -9}, "seconds": [2.0, 0.1]}
    good = {**run, "said": [["error: rank 1 (host, conv_2) is gone; more"], []]}
    slow = {**run, "said": [["interrupted: before the first epoch"], []], "seconds": [10.5, 0.1]}
    assert [told(one) for one in (good, slow)] == [True, False]
    assert [in_time(one) for one in (good, slow, {**good, "stayed": 1})] == [True, False, False]
    cells = "| SIGKILL | last rank | after |"
    assert table.ends({"runs": [good]}).splitlines()[2:] == [
        f"{cells} 2.0 of 1 | 3.0 | -9, 1; 1 | 1 of 1 | `error: rank 1 (host, conv_2) is gone` |"
    ]
    assert table.ends({"runs": [good, slow]}).splitlines()[2:] == [
        f"{cells} 10.5 of 2 **too long** | 3.0 | -9, 1; 1 | 1 of 2 | `interrupted: before the first epoch` |"
    ]
    assert table.ends({"runs": [{**good, "skipped": "no disk"}]}).splitlines()[2:] == [
        f"{cells} not measured: no disk | | | | |"
    ]
