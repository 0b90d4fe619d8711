"""Targets say met or missed, and a table says where its figures come from."""

from __future__ import annotations

from benchmarks.page import Target, origin, spread, target_table
from tests.benchmarks.made_up import results


def test_a_target_is_judged_by_the_median_as_it_was_measured() -> None:
    assert Target("a", 0.97, [0.5, 0.971, 2.0]).met
    assert not Target("a", 0.97, [0.9699, 0.9699]).met
    assert Target("a", 60.0, [59.9], at_most=True).met
    assert not Target("a", 60.0, [60.1], at_most=True).met


def test_a_missed_target_says_what_keeps_the_value_from_it_and_one_that_is_met_does_not() -> None:
    missed, met = target_table([Target("a", 2.0, [1.0], limit="two cores"), Target("b", 0.5, [1.0], limit="none")])[2:]
    assert missed == "| a | at least 2 | 1 | 1 - 1 | **missed**; two cores |"
    assert met.endswith("| met |")
    assert "at most 60 us" in target_table([Target("c", 60.0, [1.25], at_most=True, unit=" us")])[2]


def test_the_origin_names_what_a_reader_must_know() -> None:
    found = results({}, [{"load_before": 0.25}, {"load_before": 3.0}])
    line = origin(found)
    for part in ("a processor, 2 cores", "commit 0123456789ab.", "at most 3.0", "`python -m benchmarks.tables`"):
        assert part in line
    assert "uncommitted" not in line
    found["provenance"]["git_dirty"] = True
    found["interruptions"] = 1
    assert "with uncommitted changes" in origin(found)
    assert "resumed 1 time: not one run" in origin(found)


def test_a_spread_is_the_median_with_the_range() -> None:
    assert spread([3.0, 1.0, 2.0], 0) == "2 (1 - 3)"
