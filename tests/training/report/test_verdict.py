"""What turns allow to say of a difference: paired by seed, never from one or two turns."""

from __future__ import annotations

import numpy as np
import pytest

from training.report.verdict import T95, difference

stats = pytest.importorskip("scipy.stats")


def test_the_points_of_t_are_those_of_scipy() -> None:
    assert [float(stats.t.ppf(0.975, freedom)) for freedom in range(1, len(T95) + 1)] == pytest.approx(T95, abs=6e-4)


def test_common_seeds_are_paired() -> None:
    one, two = {1: 90.0, 2: 91.0, 3: 92.5, 9: 10.0}, {3: 91.0, 2: 90.5, 1: 89.0}
    found = difference(one, two)
    assert found is not None
    assert found.each == (1.0, 0.5, 1.5)
    low, high = stats.t.interval(0.95, 2, loc=1.0, scale=0.5 / np.sqrt(3))
    assert found.interval == pytest.approx((low, high), abs=1e-3)
    assert not found.shown


def test_other_seeds_are_compared_as_wholes() -> None:
    one, two = {1: 90.0, 2: 91.0, 3: 92.5}, {4: 80.0, 5: 85.0, 6: 81.0, 7: 82.0}
    found = difference(one, two)
    assert found is not None
    assert found.each == ()
    assert found.interval is not None
    welch = stats.ttest_ind(list(one.values()), list(two.values()), equal_var=False).confidence_interval(0.95)
    assert found.interval[0] <= welch.low + 1e-3
    assert found.interval[1] >= welch.high - 1e-3
    assert found.shown


@pytest.mark.parametrize("turns", [1, 2])
def test_few_turns_give_no_interval(turns: int) -> None:
    found = difference({n: 90.0 + n for n in range(turns)}, dict.fromkeys(range(turns), 50.0))
    assert found is not None
    assert (found.interval, found.shown, found.turns) == (None, False, turns)
    other = difference({n: 90.0 + n for n in range(turns)}, {n + 5: 50.0 for n in range(turns)})
    assert other is not None
    assert other.interval is None


def test_the_same_everywhere_has_no_interval() -> None:
    found = difference(dict.fromkeys(range(5), 90.1), dict.fromkeys(range(5), 89.0))
    assert found is not None
    assert not found.shown
    assert difference({}, {1: 2.0}) is None


def test_with_many_turns_the_interval_is_rather_too_wide() -> None:
    one = {n: 90.0 + n % 3 for n in range(40)}
    found = difference(one, dict.fromkeys(one, 89.0))
    assert found is not None
    assert found.interval is not None
    low, high = stats.t.interval(0.95, 39, loc=found.mean, scale=np.std(found.each, ddof=1) / np.sqrt(40))
    assert found.interval[0] <= low
    assert found.interval[1] >= high
    assert found.interval == pytest.approx((low, high), rel=0.02)
