"""Learning rates: one for all parameter groups of a layer, or some of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

LearningRate = SupportsFloat | Mapping[str, SupportsFloat]


def checked_rates(who: str, lr: LearningRate, names: list[str]) -> dict[str | None, float]:
    """Return {name: rate} from a mapping, or {None: rate} from one number. Raises ValueError."""
    rates: dict[str | None, SupportsFloat] = {k: lr[k] for k in lr} if isinstance(lr, Mapping) else {None: lr}
    unknown = set(rates) - {None, *names}
    if unknown or not rates:
        expected = " and ".join(f'"{name}"' for name in names) or "one number"
        raise ValueError(f"{who}: got learning rates for {sorted(map(str, rates))}; expected {expected}")
    checked: dict[str | None, float] = {}
    for name, value in rates.items():
        of = f" for {name}" if name is not None else ""
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            raise ValueError(f"{who}: got learning rate {value!r}{of}; expected a number")
        rate = checked[name] = float(value)
        if not 0.0 <= rate < float("inf"):
            raise ValueError(f"{who}: got learning rate {rate}{of}; expected a finite number >= 0")
    return checked


def scaled(lr: LearningRate, factor: float) -> LearningRate:
    """Return a learning rate times `factor`."""
    if isinstance(lr, Mapping):
        return {name: float(rate) * factor for name, rate in lr.items()}
    return float(lr) * factor
