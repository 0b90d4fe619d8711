"""What was expected, what it took, and by how much they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plan.__main__ import epochs, expected
from benchmarks.plan.table import markdown, off

RUN = {"expected": {"al": 1.2, "bp": 60.0}, "epochs": {"al": [0.9, 1.1], "bp": [70.0, 80.0]}}


def test_the_expectation_is_read_from_what_plan_prints() -> None:
    line = "expected training time per epoch: AL 1.20 s, BP 2.5 min; all of 1 turn of 20 epochs: 1.2 h, evaluation not"
    assert expected(f"before\n{line} counted\nafter") == {"al": 1.2, "bp": 150.0}
    with pytest.raises(RuntimeError, match="no expectation"):
        expected("before")


def test_an_epoch_takes_what_the_sum_has_grown_by(tmp_path: Path) -> None:
    (tmp_path / "x_al.csv").write_text("turn,epoch,train_time\n1,1,0.9\n1,2,2.0\n")
    assert epochs(tmp_path / "x_al.csv") == pytest.approx([0.9, 1.1])


def test_the_table_says_how_far_off_it_was() -> None:
    assert off(RUN, "al") == pytest.approx(20.0)
    rows = markdown({"models": {"VGG": {"runs": [RUN]}}}).splitlines()
    assert rows[2] == "| VGG | AL | 1.20 | 0.90 | 1.10 | +20 |"
    assert rows[3] == "| VGG | BP | 60.00 | 70.00 | 80.00 | -20 |"
