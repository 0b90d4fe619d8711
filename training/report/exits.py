"""What a method's JSON holds about early exit: test accuracy against work, for each turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError


class Reached(BaseModel):
    """Test accuracy in percent, and the mean work of a sample as a share of that of all layers."""

    work: float
    accuracy: float


class Chosen(Reached):
    """What thresholds reach that were chosen on validation: one per depth but the last, null where none is tried."""

    thresholds: list[float | None]
    validation: Reached | None = None
    """What they reach on validation, by which they are chosen; None before that was recorded."""


class Within(Chosen):
    """The best on validation within a budget, and which share of the test samples leaves at each depth."""

    budget: float
    shares: list[float]


class TurnExits(BaseModel):
    """What a turn's network does with early exit, with its weights after `epoch`.

    `depths`: every sample leaves at the same depth.
    """

    turn: int
    epoch: int
    confidence: str
    temperatures: list[float]
    depths: list[Reached]
    curve: list[Chosen]
    budgets: list[Within]


class MeanWithin(NamedTuple):
    """A budget, with the means over the turns."""

    budget: float
    work: float
    accuracy: float
    shares: list[float]


def read_exits(content: Any) -> list[TurnExits]:
    """Return what is known of the turns; nothing where it is not ours."""
    try:
        return [TurnExits.model_validate(one) for one in content or []]
    except (TypeError, ValidationError):
        return []


def mean_budgets(turns: Sequence[TurnExits]) -> Iterator[MeanWithin]:
    """Yield the budgets that could be met in every turn."""
    for budget in (one.budget for one in turns[0].budgets):
        found = [one for turn in turns for one in turn.budgets if one.budget == budget]
        if len(found) == len(turns):
            shares = [fmean(values) for values in zip(*(one.shares for one in found), strict=True)]
            yield MeanWithin(budget, fmean(one.work for one in found), fmean(one.accuracy for one in found), shares)


def mean_depths(turns: Sequence[TurnExits]) -> list[tuple[float, list[float]]]:
    """Return, by depth, the mean work and the accuracy of every turn."""
    return [
        (fmean(one.work for one in alike), [one.accuracy for one in alike])
        for alike in zip(*(t.depths for t in turns), strict=True)
    ]
