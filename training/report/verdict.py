"""What the turns of two runs allow to say about their difference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

#: Two-sided 95 % points of Student's t, by degrees of freedom from 1. With more than 30 the last one is used, which is
#: a little too wide.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
#: With fewer turns a spread is a guess.
ENOUGH = 3


@dataclass(frozen=True)
class Difference:
    """One run's test accuracy minus another's, over the turns."""

    mean: float
    turns: int
    """Of the run that has fewer."""
    each: tuple[float, ...]
    """By turn, where both have the same seeds; else empty."""
    interval: tuple[float, float] | None
    """In which the mean difference lies with 95 % confidence; None where the turns are too few, or do not vary."""

    @property
    def shown(self) -> bool:
        """Whether the turns show a difference."""
        return self.interval is not None and not self.interval[0] <= 0.0 <= self.interval[1]


def difference(one: Mapping[int, float], two: Mapping[int, float]) -> Difference | None:
    """Return the difference of two runs, given the test accuracy of their finished turns by seed.

    Turns with the same seed are compared with each other; without common seeds, the runs as wholes. None where one has
    no finished turn.
    """
    common = [seed for seed in one if seed in two]
    if common:
        each = tuple(one[seed] - two[seed] for seed in common)
        error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) >= ENOUGH else 0.0
        return _difference(statistics.fmean(each), len(each), each, error, len(each) - 1.0)
    if not one or not two:
        return None
    mean, turns = statistics.fmean(one.values()) - statistics.fmean(two.values()), min(len(one), len(two))
    if turns < ENOUGH:
        return _difference(mean, turns, (), 0.0, 1.0)
    # Welch: the two may vary differently.
    parts = [statistics.variance(run.values()) / len(run) for run in (one, two)]
    freedom = [part**2 / (len(run) - 1) for part, run in zip(parts, (one, two), strict=True)]
    return _difference(mean, turns, (), math.sqrt(sum(parts)), sum(parts) ** 2 / sum(freedom) if any(freedom) else 1.0)


def _difference(mean: float, turns: int, each: tuple[float, ...], error: float, freedom: float) -> Difference:
    whole = int(freedom)  # rounded down: rather too wide than too narrow
    reach = error * T95[min(whole, len(T95)) - 1]
    # Rounded, because a difference of the last bits is none.
    interval = (mean - reach, mean + reach) if error > 1e-9 else None
    return Difference(mean, turns, each, interval)
