"""What early exit does for a network that has been trained: thresholds from validation, accuracy and work on test."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ALPackage.early_exit import Known, joined
from ALPackage.exits.search import Outcome, Rule, Table, best_within_budget, front, outcomes

from ..report.exits import Chosen, Reached, TurnExits, Within
from ..trainers.trainer import Trainer

CONFIDENCE = "probability"
#: Shares of the work of all layers for which the report says what leaves where.
BUDGETS = (0.25, 0.5, 0.75, 1.0)
Batches = Iterable[tuple[Any, Tensor]]


def measure_exits(
    trainer: Trainer, validation: Batches, test: Batches, *, turn: int, epoch: int
) -> tuple[TurnExits | None, list[str]]:
    """Return what early exit does with the weights that the trainer has, and notes; None for a single depth.

    Both sets of batches are predicted once; the first batch of `validation` is taken through the layers once more, to
    count the work. `epoch`: after which the weights are, for the reader.
    """
    if trainer.depths == 1:
        return None, []
    try:
        work = trainer.work(next(iter(validation))[0])
        if work is None:
            return None, ["early exit: not measured, because the work of the layers could not be counted"]
        logits, labels = joined(list(trainer.predict(validation)))
        known = Known.fit(logits, labels, work, CONFIDENCE)
        table = known.also(trainer.predict(test))
    except (ValueError, RuntimeError) as error:  # hours of training are worth more
        return None, [f"early exit: not measured: {str(error).splitlines()[0].removeprefix('early exit: ')}"]
    found = outcomes(known.table)
    depths, samples = table.depths, known.table.samples
    least = min(one.work for one in found)
    return TurnExits(
        turn=turn,
        epoch=epoch,
        confidence=CONFIDENCE,
        temperatures=list(known.temperatures),
        depths=[Reached(**_reached(table, Rule(depth, depth, 0.0))) for depth in range(1, depths + 1)],
        curve=sorted(
            (Chosen(**_chosen(table, one, samples)) for one in front(found)),
            key=lambda one: one.work,
        ),
        budgets=[
            Within(
                **_chosen(table, best, samples),
                budget=budget,
                shares=[round(share, 6) for share in table.shares(best.rule)],
            )
            for budget in BUDGETS
            if budget >= least
            for best in [best_within_budget(found, budget)]
        ],
    ), []


def _chosen(table: Table, outcome: Outcome, samples: int) -> dict[str, Any]:
    """Return what an outcome on so many validation samples comes to on those of `table`."""
    thresholds = [None if math.isinf(one) else one for one in outcome.rule.thresholds(table.depths)]
    return {**_reached(table, outcome.rule), "thresholds": thresholds, "validation": _shares(outcome, samples)}


def _reached(table: Table, rule: Rule) -> dict[str, float]:
    return _shares(table.outcome(rule), table.samples)


def _shares(outcome: Outcome, samples: int) -> dict[str, float]:
    return {"work": round(outcome.work, 6), "accuracy": round(100.0 * outcome.right / samples, 4)}
