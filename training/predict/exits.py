"""Which thresholds --exit means: those that a turn's results have, chosen on validation; nothing here needs torch."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..config.load import method_title
from ..errors import UsageError
from ..report.exits import Chosen, Reached, TurnExits
from .choose import Kept


class Exit(NamedTuple):
    """When samples leave: thresholds, what they reach on the test set, and the temperatures of all depths."""

    budget: float
    chosen: Chosen
    confidence: str
    temperatures: list[float]

    @property
    def thresholds(self) -> list[float]:
        """One per depth but the last; infinite where a depth is not tried."""
        return [math.inf if one is None else one for one in self.chosen.thresholds]


def choose_exit(kept: Kept, budget: float) -> Exit:
    """Return the thresholds that are most accurate on validation with at most `budget` of the work of all layers.

    They are chosen among those of the results' curve and budgets, which were measured with the kept weights. Raises
    UsageError.
    """
    found = _of_turn(kept)
    known = [(one, one.validation) for one in [*found.budgets, *found.curve] if one.validation is not None]
    depths = len(kept.result.info.losses)
    if not known or any(len(one.thresholds) != depths - 1 for one, _ in known) or len(found.temperatures) != depths:
        raise UsageError(
            f"{kept.result.path}: --exit cannot use its early_exit, which is not as this version writes it; run the "
            "command again"
        )
    within = [(one, validation) for one, validation in known if validation.work <= budget]
    if not within:
        least = math.ceil(1e4 * min(validation.work for _, validation in known)) / 1e4
        raise UsageError(f"--exit {budget:g}: no thresholds need as little of the work; give {least:g} or more")
    best, _ = max(within, key=_merit)
    return Exit(budget, best, found.confidence, found.temperatures)


def _merit(one: tuple[Chosen, Reached]) -> tuple[float, float]:
    _, validation = one
    return validation.accuracy, -validation.work


def _of_turn(kept: Kept) -> TurnExits:
    """Return what the results say of early exit with the kept weights. Raises UsageError."""
    result, turn = kept.result, kept.turn
    again = "run the command again"
    if result.method == "bp" or len(result.info.losses) == 1:
        which = "BP" if result.method == "bp" else f"{method_title(result.method)} with one layer"
        raise UsageError(f"--exit: {which} has one depth, at which every sample leaves; leave it out")
    if turn.turn > result.record.turns_finished:
        raise UsageError(
            f"--exit: turn {turn.turn} has not been finished, and early exit is measured at its end; {again} with "
            "--resume, or name another turn with --turn"
        )
    found = next((one for one in result.record.early_exit if one.turn == turn.turn), None)
    if found is None:
        why = next((note for note in result.info.notes if note.startswith("early exit: ")), None)
        if why is None:
            raise UsageError(f"{result.path}: is from before early exit was measured; {again}")
        alone = " in one process" if result.info.processes > 1 else ""
        raise UsageError(f"{result.path}: has no thresholds for --exit ({why}); {again}{alone}")
    if found.epoch != turn.epoch:
        raise UsageError(
            f"{result.path}: its thresholds are for the weights of epoch {found.epoch}, and those of epoch "
            f"{turn.epoch} have been kept; {again}"
        )
    return found
