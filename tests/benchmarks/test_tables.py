"""The tables on the pages are those of the committed JSON."""

from __future__ import annotations

import re

import pytest

from benchmarks import tables
from benchmarks.schedule.stages import stage_times


def test_no_table_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_that_was_changed_by_hand_is_noticed() -> None:
    place = "before\n<!-- table: schedule -->\n| 9,999 |\n<!-- end -->\nafter\n"
    right = tables.written(place)
    assert "9,999" not in right
    assert right.startswith("before\n<!-- table: schedule -->\n\n| ")
    assert right.endswith("\n\n<!-- end -->\nafter\n")
    assert tables.written(right) == right


def test_a_table_may_have_another_form_and_file() -> None:
    place = "<!-- table: accuracy searched gpu.results.json -->\n<!-- end -->\n"
    right = tables.written(place)
    assert right.startswith("<!-- table: accuracy searched gpu.results.json -->\n\n")
    assert "NVIDIA" in right
    assert "| method | trial |" in right
    assert "NVIDIA" not in tables.written("<!-- table: accuracy trials -->\n<!-- end -->\n")


def test_a_table_without_results_says_so_and_those_of_another_generator_are_left_alone() -> None:
    missing = tables.written("<!-- table: gpu markdown no-such.json -->\n| 1 |\n<!-- end -->\n")
    assert "No result is committed yet" in missing
    assert "| 1 |" not in missing
    other = "<!-- table: config vision -->\n| key |\n<!-- end -->\n"
    assert tables.written(other) == other


def test_what_can_exceed_the_measured_run_is_called_an_estimate_and_a_utilization_cannot() -> None:
    shown = tables.written("<!-- table: schedule -->\n<!-- end -->\n") + tables.written(
        "<!-- table: pipeline -->\n<!-- end -->\n"
    )
    assert not re.search(r"ceiling|bound|efficiency", shown, flags=re.IGNORECASE)
    heads, _, *rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("|")][:11]
    assert heads[-1] == "utilization of the busiest stage"
    assert all(float(row[-1].removesuffix(" %")) <= 100 for row in rows)
    assert any(float(row[2].rstrip("x")) > float(row[1].rstrip("x")) for row in rows)  # shown as it is


def test_stage_times_have_the_mean_and_the_spread_that_they_say() -> None:
    assert stage_times(4, 0.01, "balanced") == [0.01] * 4
    assert stage_times(3, 0.01, "ramp") == pytest.approx([0.005, 0.01, 0.015])
    assert stage_times(4, 0.01, "one slow") == [0.01, 0.01, 0.02, 0.01]
