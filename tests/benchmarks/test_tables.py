"""The tables on the pages are those of the committed JSON."""

from __future__ import annotations

import pytest

from benchmarks import tables


def test_no_table_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_that_was_changed_by_hand_is_noticed() -> None:
    place = "before\n<!-- table: gpu earlier earlier.json -->\n| 9,999 |\n<!-- end -->\nafter\n"
    right = tables.written(place)
    assert "9,999" not in right
    assert right.startswith("before\n<!-- table: gpu earlier earlier.json -->\n\n| ")
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
