"""Early exit: every depth of a stack predicts, so a sample may leave at the first one that is sure of it.

The logits of an AL stack with the contrastive association are products with the codes of the classes: cosines, times
the norms of these codes, which start at 1. Training divides them by a temperature that inference does not know, so the
softmax of them is much flatter than they are sure, and not equally so at each depth. `calibrate` fits a temperature
per depth on validation; without it, a threshold on a probability says little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .busy import refuse_if_busy
from .exits.confidence import CONFIDENCES, Streak, certainty, confidences, fit_temperature
from .exits.search import Rule, Table, best_within_budget, cheapest_within_loss, front, outcomes
from .exits.work import Work, count_work
from .given import check_number, number
from .layer import LocalLayer
from .objectives.classification import ClassifierAL
from .rows import select_rows
from .stack import ALStack

Batches = Iterable[tuple[Any, Tensor]]
#: Layers that take rows of x from dimension 0 of its tensors, which can be done at once.
PLAIN_SPLITS = (LocalLayer.split, ClassifierAL.split)


class Exits(NamedTuple):
    """What `EarlyExit.predict` returns.

    `prediction`: logits (B, C), in the order of the rows. `depth`: where each row left, int64 (B,), counted from 1.

    Example:
        >>> Exits(torch.zeros(2, 3), torch.tensor([1, 4])).depth.tolist()
        [1, 4]
    """

    prediction: Tensor
    depth: Tensor


class Point(NamedTuple):
    """A point of `EarlyExit.curve`: the thresholds, and what they give.

    `work`: mean floating-point operations of a sample, as a share of those of all layers. `accuracy`: in percent.
    """

    exit: EarlyExit
    work: float
    accuracy: float


@dataclass(frozen=True)
class EarlyExit:
    """When a sample leaves: at the first depth whose confidence is at least the depth's threshold.

    Args:
        threshold: One number for every depth, or one for each but the last, which takes all that is left. 0 lets every
            sample leave; an exit with an infinite threshold is not tried, and costs nothing.
        confidence: "probability": the largest one of the classes; "margin": the difference of the two largest;
            "entropy": one minus the entropy, over that of equal probabilities; all three are in [0, 1]. "agreement":
            how many of the exits that were tried, in a row up to this one, predict the same class: with a threshold of
            2, a sample leaves when the last two agree.
        temperature: What the logits are divided by for the probabilities, one number or one per depth; it does not
            change the prediction, and agreement does not need it.

    Raises:
        ValueError: For an unknown confidence, a threshold that is not a number >= 0, or a temperature that is not
            finite and > 0.

    Example:
        >>> def layer(x, y):
        ...     return AL(ENC(nn.Linear(x, 8), nn.Linear(8, 4)), AE(nn.Linear(y, 4), nn.Linear(4, y)))
        >>> stack = ALStack([layer(6, 3), layer(8, 4), layer(8, 4)]).eval()
        >>> x, labels = torch.randn(20, 6), torch.randint(3, (20,))
        >>> stack.inference(x, exit=EarlyExit(threshold=0.9)).shape
        torch.Size([20, 3])
        >>> EarlyExit(threshold=0.0).predict(stack, x).depth.unique().tolist()  # all leave at depth 1
        [1]
        >>> half = EarlyExit.calibrate(stack, [(x, labels)], budget=0.5)  # the best thresholds for half of the work
        >>> half.predict(stack, x).prediction.shape, len(half.threshold)
        (torch.Size([20, 3]), 2)
    """

    threshold: float | Sequence[float]
    confidence: str = "probability"
    temperature: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"confidence: got {self.confidence!r}; expected one of {', '.join(CONFIDENCES)}")
        for name, least in (("threshold", "0 or more"), ("temperature", "a finite number above 0")):
            given = getattr(self, name)
            one = number(given)
            several = [] if one is not None else [given] if isinstance(given, str) else _listed(given)
            for value in [given] if one is not None else several:
                check_number(
                    name, value, (lambda x: x >= 0) if name == "threshold" else (lambda x: 0 < x < math.inf), least
                )
            # Whatever kind of number or sequence it was: two with the same numbers are equal.
            object.__setattr__(self, name, one if one is not None else tuple(map(float, several)))

    def thresholds(self, depths: int) -> list[float]:
        """Return the threshold of each depth but the last. Raises ValueError where their number does not fit."""
        return _of_each(self.threshold, depths - 1, "thresholds", f"{depths} layers need one for each but the last")

    @torch.no_grad()
    def predict(self, stack: ALStack, x: Any) -> Exits:
        """Return the predictions, and the depths at which the rows left, on the first layer's device.

        What a row gets is what `stack.inference(x, depth=k)` gives it for the depth k at which it left: bit for bit if
        no row leaves early, else up to the rounding of a matrix product over fewer rows.

        Args:
            stack: In evaluation mode, with predictions that are logits (B, C).
            x: A nested structure; rows are told and taken by `rows`, `split` and `join` of the layer that reads them.

        Raises:
            ValueError: If thresholds or temperatures do not fit the stack, if a layer is in training mode, in which
                rows depend on one another, or if a prediction is not (B, C).
            LayerError: If the rows of x cannot be told.
        """
        refuse_if_busy(stack, "EarlyExit.predict")
        _refuse_training(stack)
        layers, last = list(stack), len(stack)
        thresholds = self.thresholds(last)
        temperatures = _of_each(self.temperature, last, "temperatures", f"{last} layers need as many")
        rows = torch.arange(layers[0].rows(x))
        total, streak = len(rows), Streak()
        depths, prediction = torch.empty_like(rows), torch.empty(0)
        for depth, layer in enumerate(layers, start=1):
            x = layer.hidden(x)
            if depth < last and thresholds[depth - 1] == math.inf:
                continue
            logits = checked(stack._decode(layers[:depth], x), len(rows), depth)
            if prediction.dim() != 2:  # the first exit shows where predictions are, and of how many classes
                prediction = logits.new_empty(total, logits.shape[1])
                rows, depths = rows.to(logits.device), depths.to(logits.device)
            if depth == last:
                leave = torch.ones_like(rows, dtype=torch.bool)
            elif self.confidence == "agreement":
                leave = streak.add(logits) >= thresholds[depth - 1]
            else:
                leave = certainty(self.confidence, logits, temperatures[depth - 1]) >= thresholds[depth - 1]
            prediction[rows[leave]] = logits[leave]
            depths[rows[leave]] = depth
            stay = ~leave
            if not bool(stay.any()):
                break
            if bool(leave.any()):
                streak.keep(stay)
                rows = rows[stay]
                x = _go_on(layers[depth], x, stay.nonzero().squeeze(1))
        return Exits(prediction, depths)

    @classmethod
    def calibrate(
        cls,
        stack: ALStack,
        validation: Batches,
        *,
        budget: float | None = None,
        loss: float | None = None,
        confidence: str = "probability",
    ) -> EarlyExit:
        """Return the temperatures and thresholds that suit a validation set; give a budget or a loss.

        One threshold holds for the exits from a first to a last one, at which all that is left leaves; which these are
        is chosen too, so that no fixed depth of the same work is better on validation. Work is counted in
        floating-point operations, on the first batch; every exit that is tried counts.

        Args:
            stack: As for `predict`.
            validation: Batches of (x, labels int64 (B,)); not those to be tested on.
            budget: The work that a sample may need on average, as a share of that of all layers, in (0, 1]; the most
                accurate thresholds within it are taken.
            loss: How many points of accuracy may be lost against all layers, in [0, 100]; the least work is taken.
            confidence: As for `EarlyExit`.

        Raises:
            ValueError: For a budget or a loss that is outside, or a budget that cannot be met; and as `predict` does.
        """
        if (budget is None) == (loss is None):
            raise ValueError("calibrate: give either budget, a share of the work, or loss, in points of accuracy")
        if budget is not None:
            expected = "a share of the work of all layers, above 0 and up to 1"
            check_number("budget", budget, lambda share: 0 < share <= 1, expected)
        if loss is not None:
            check_number("loss", loss, lambda points: 0 <= points <= 100, "points of accuracy, from 0 to 100")
        known = Known.of(stack, validation, confidence)
        if budget is not None:
            return known.exit(best_within_budget(outcomes(known.table), budget).rule)
        assert loss is not None
        return known.exit(cheapest_within_loss(known.table, loss).rule)

    @staticmethod
    @torch.no_grad()
    def curve(
        stack: ALStack, validation: Batches, test: Batches | None = None, *, confidence: str = "probability"
    ) -> list[Point]:
        """Return accuracy against work, by work: thresholds that no cheaper ones equal on validation.

        With `test`, work and accuracy are those on it, and so need not rise from point to point.
        """
        known = Known.of(stack, validation, confidence)
        best = front(outcomes(known.table))
        table = known.table
        if test is not None:
            table = known.also((stack.inference_by_depth(x), y) for x, y in map(_checked_batch, test))
        found = [table.outcome(one.rule) for one in best]
        return [
            Point(known.exit(one.rule), one.work, 100.0 * one.right / table.samples)
            for one in sorted(found, key=lambda one: one.work)
        ]


@dataclass(frozen=True)
class Known:
    """What a validation set says of a stack: a temperature for each depth, the work, and every sample's confidence."""

    confidence: str
    temperatures: tuple[float, ...]
    table: Table

    @staticmethod
    def of(stack: ALStack, validation: Batches, confidence: str) -> Known:
        """Take the validation set through the stack, once."""
        EarlyExit(1.0, confidence)  # refuses an unknown one before anything is computed
        batches = iter(validation)
        first = next(batches, None)
        if first is None:
            raise ValueError("early exit: got no batches; give at least one of (x, labels)")
        first = _checked_batch(first)
        logits, labels = logits_by_depth(stack, chain([first], batches))
        return Known.fit(logits, labels, count_work(stack, first[0]), confidence)

    @staticmethod
    def fit(logits: Sequence[Tensor], labels: Tensor, work: Work, confidence: str) -> Known:
        """Take the logits (N, C) per depth and the labels (N,) of the validation set, and the work at each depth."""
        temperatures = tuple(fit_temperature(one, labels) for one in logits)
        return Known(confidence, temperatures, _table(confidence, temperatures, logits, labels, work))

    def also(self, predictions: Iterable[tuple[Sequence[Any], Tensor]]) -> Table:
        """Return what is known of the samples of another set, from the predictions of every depth and the labels."""
        work = self.table.work
        parts = [_table(self.confidence, self.temperatures, *joined([one]), work) for one in predictions]
        if not parts:
            raise ValueError("early exit: got no test batches; give at least one of (x, labels), or leave test out")
        sure, right = torch.cat([one.confidence for one in parts], 1), torch.cat([one.right for one in parts], 1)
        return Table(sure, right, work, self.table.streaks)

    def exit(self, rule: Rule) -> EarlyExit:
        """Return a rule with its temperatures."""
        return EarlyExit(rule.thresholds(self.table.depths), self.confidence, self.temperatures)


def _table(
    confidence: str, temperatures: Sequence[float], logits: Sequence[Tensor], labels: Tensor, work: Work
) -> Table:
    sure = confidences(confidence, logits, temperatures)
    right = torch.stack([one.argmax(1) == labels for one in logits])
    return Table(sure, right, work, streaks=confidence == "agreement")


@torch.no_grad()
def logits_by_depth(stack: ALStack, batches: Batches) -> tuple[list[Tensor], Tensor]:
    """Return the logits (N, C) of every depth, and the labels (N,), on the CPU. Raises ValueError as `predict` does."""
    _refuse_training(stack)
    return joined([(stack.inference_by_depth(x), labels) for x, labels in map(_checked_batch, batches)])


def joined(parts: Sequence[tuple[Sequence[Any], Tensor]]) -> tuple[list[Tensor], Tensor]:
    """Return the logits (N, C) of every depth, and the labels (N,), from predictions by depth per batch.

    Raises ValueError for predictions that are not (B, C).
    """
    by_depth = [
        torch.cat([checked(predictions[depth], len(labels), depth + 1).cpu() for predictions, labels in parts])
        for depth in range(len(parts[0][0]))
    ]
    labels, classes = torch.cat([labels.cpu() for _, labels in parts]), by_depth[0].shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"early exit: got labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {classes - 1}"
        )
    return by_depth, labels


def _checked_batch(batch: Any) -> tuple[Any, Tensor]:
    """Return one of the batches, if it is (x, labels (B,)). Raises ValueError."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        labels = batch[1]
        if isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point():
            return batch[0], labels
    raise ValueError("early exit: expected batches of (x, labels int64 (B,)), such as a list of one: [(x, labels)]")


def _listed(given: Any) -> list[Any]:
    """Return the entries of a sequence or a tensor; anything else as the only one, which is refused."""
    return list(given) if isinstance(given, Iterable) else [given]


def checked(prediction: Any, rows: int, depth: int) -> Tensor:
    """Return the prediction of a depth for so many rows, if it is logits (B, C). Raises ValueError."""
    if isinstance(prediction, Tensor):
        fits = prediction.dim() == 2 and len(prediction) == rows and prediction.shape[1] > 1
        found = f"shape {tuple(prediction.shape)}"
        if fits and prediction.is_floating_point():
            return prediction
    else:
        found = f"a {type(prediction).__name__}"
    raise ValueError(
        f"early exit: the prediction of depth {depth} for {rows} rows is {found}; expected logits (B, C) of at least "
        "two classes"
    )


def _of_each(given: float | Sequence[float], count: int, what: str, needed: str) -> list[float]:
    """Return one number for each of `count`. Raises ValueError where there are others."""
    if isinstance(given, (int, float)):
        return [float(given)] * count
    if len(given) != count:
        raise ValueError(f"early exit: got {len(given)} {what}; {needed}: {count}, or a single number")
    return list(given)


def _refuse_training(stack: ALStack) -> None:
    for name, layer in stack.items():
        if layer.training:
            raise ValueError(
                f"early exit: layer {name!r} is in training mode, in which rows may depend on one another; call "
                "stack.eval() first"
            )


def _go_on(layer: LocalLayer, x: Any, index: Tensor) -> Any:
    """Return some rows of a layer's input, whose places ascend."""
    total = layer.rows(x)
    if type(layer).rows is LocalLayer.rows and type(layer).split in PLAIN_SPLITS:
        return select_rows(x, index, total)
    # A layer of the user's knows how to take neighboring rows.
    places = index.tolist()
    starts = [place for before, place in zip([-2, *places], places, strict=False) if place != before + 1]
    stops = [place + 1 for place, after in zip(places, [*places[1:], total + 1], strict=True) if after != place + 1]
    parts = [layer.split(x, None, start, stop) for start, stop in zip(starts, stops, strict=True)]
    return layer.join(parts)[0]
