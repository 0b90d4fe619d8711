"""Where a number lies on an axis, and which numbers stand beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: What an axis shows where there is nothing to show.
NOTHING = (0.0, 1.0)


@dataclass(frozen=True)
class Scale:
    """A linear or a logarithmic axis from `low` to `high`, drawn from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    whole: bool = False
    """Whether only whole numbers make sense."""

    def __call__(self, value: float) -> float:
        """Return where `value` is drawn."""
        low, high = self._turned(self.low), self._turned(self.high)
        return round(self.start + (self.stop - self.start) * (self._turned(value) - low) / (high - low), 1)

    def _turned(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Return round numbers within the axis, at most about `most`, with their texts."""
        if self.log:
            return _log_ticks(self.low, self.high, most)
        step = _step((self.high - self.low) / most)
        if self.whole:
            step = max(1.0, step)
        first = math.ceil(self.low / step - 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        count = int((self.high - first * step) / step + 1e-9) + 1
        return [((first + n) * step, f"{(first + n) * step:,.{digits}f}") for n in range(count)]


def reach(
    values: Iterable[float], *, least: float = 0.0, inside: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Return the range of an axis for these values, with a margin; at least `least` wide and, if need be, `inside`."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return NOTHING
    low, high = min(finite), max(finite)
    margin = max(0.06 * (high - low), (least - (high - low)) / 2, 1e-9 if high > low else abs(high) * 0.1 or 0.5)
    low, high = low - margin, high + margin
    if inside is not None:
        # A little more than the ends, so that a curve at 100 % is seen whole.
        room = 0.02 * (inside[1] - inside[0])
        low, high = max(low, inside[0] - room), min(high, inside[1] + room)
    return low, high


def log_reach(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of a logarithmic axis for these values."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    return (min(finite) / 1.25, max(finite) * 1.25) if finite else (0.1, 1.0)


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, .. times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _log_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most + 2:
            break
    else:
        found = found[:: math.ceil(len(found) / most)]
    return [(value, f"{value:g}") for value in found]
