"""A run that was interrupted goes on; figures that do not belong together are not mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.launch import WorkerError
from benchmarks.record import Record

CASES = [{"repeat": repeat, "who": who} for repeat in range(2) for who in ("a", "b")]


def record(path: Path, settings: dict[str, Any], part: str | None = None) -> Record:
    return Record(path, "benchmarks.tables", [], settings, part=part)


def test_an_interrupted_run_goes_on_with_the_first_case_that_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    asked: list[tuple[int, str]] = []

    def measure(repeat: int, who: str) -> dict[str, Any]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append((repeat, who))
        return {"figure": 1.0}

    first = record(out, {"size": 1})
    with pytest.raises(KeyboardInterrupt):
        first.take(CASES, measure)
    assert not out.exists()
    asked[:] = asked[:1]  # so that it goes on
    second = record(out, {"size": 1})
    second.take(CASES, lambda repeat, who: {"figure": 2.0})
    found = second.finish()
    assert found["interruptions"] == 1
    assert [(run["repeat"], run["who"], run["figure"]) for run in found["runs"]] == [
        (0, "a", 1.0),
        (0, "b", 1.0),
        (1, "a", 2.0),
        (1, "b", 2.0),
    ]
    assert json.loads(out.read_text()) == found
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_other_settings_or_another_commit_start_anew(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    first = record(out, {"size": 1})
    first.take(CASES, lambda repeat, who: {"figure": 1.0})
    assert record(out, {"size": 2}).runs == []
    first.results["provenance"]["git_commit"] = "another"
    first.keep()
    assert record(out, {"size": 1}).runs == []


def test_a_part_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    for part in ("vgg", "lstm"):
        one = record(out, {"size": 1}, part)
        one.take([{"who": part}], lambda who: {"figure": 1.0})
        found = one.finish()
    assert list(found) == ["vgg", "lstm"]
    assert found["vgg"]["runs"][0]["who"] == "vgg"


def test_a_process_that_fails_costs_its_own_figures_only(tmp_path: Path) -> None:
    def measure(who: str) -> dict[str, Any]:
        if who == "a":
            raise WorkerError("out of memory")
        return {"figure": 1.0}

    one = record(tmp_path / "results.json", {})
    one.take([{"who": "a"}, {"who": "b"}], measure)
    assert [run.get("failed") for run in one.runs] == ["out of memory", None]
    again = record(tmp_path / "results.json", {})
    again.take([{"who": "a"}, {"who": "b"}], lambda who: {"figure": 2.0})
    assert [(run["who"], run["figure"]) for run in again.runs] == [("b", 1.0), ("a", 2.0)]


def test_no_measurement_begins_when_the_time_is_over(tmp_path: Path) -> None:
    one = record(tmp_path / "results.json", {})
    one.take(CASES, lambda repeat, who: {"figure": 1.0}, until=0.0)
    assert one.runs == []
