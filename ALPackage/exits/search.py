"""Which thresholds suit a validation set: every rule of a family is tried at once, on confidences that are known.

A rule tries the exits of depths `first` to `last`, with one threshold; at `last` all that is left leaves. Every fixed
depth k is the rule (k, k), and all layers with no exit the rule (L, L). Legend: L depths, N samples, M thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .work import Work

#: Thresholds that are tried at most, and points of a curve.
LEVELS, POINTS = 400, 50


class Rule(NamedTuple):
    """What leaves where; depths count from 1."""

    first: int
    last: int
    threshold: float

    def thresholds(self, depths: int) -> tuple[float, ...]:
        """Return a threshold for every depth but the last of all; infinite where the exit is not tried."""
        return tuple(
            0.0 if depth == self.last else self.threshold if self.first <= depth < self.last else math.inf
            for depth in range(1, depths)
        )


class Outcome(NamedTuple):
    """What a rule gives on a set of samples."""

    rule: Rule
    work: float
    """The mean per sample, as a share of all layers with no exit."""
    right: int
    """How many samples are predicted rightly."""


@dataclass(frozen=True)
class Table:
    """What is known of N samples at L depths.

    Attributes:
        confidence: float (L, N).
        right: bool (L, N): whether the class is predicted.
        streaks: Whether confidences are the lengths of streaks from depth 1 (see `confidence.Streak`).
    """

    confidence: Tensor
    right: Tensor
    work: Work
    streaks: bool = False

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.right.shape[1]

    @property
    def depths(self) -> int:
        """How many there are."""
        return self.right.shape[0]

    def from_depth(self, first: int) -> Tensor:
        """Return the confidences (L - first + 1, N) of depths `first` and later, where no exit before is tried."""
        found = self.confidence[first - 1 :]
        if not self.streaks:
            return found
        longest = torch.arange(1, len(found) + 1, device=found.device, dtype=found.dtype)
        return torch.minimum(found, longest[:, None])

    def leaving(self, rule: Rule) -> Tensor:
        """Return the depth int64 (N,) at which each sample leaves."""
        passed = self.from_depth(rule.first)[: rule.last - rule.first] >= rule.threshold
        always = torch.ones_like(self.right[:1])
        # argmax returns the first of equals.
        return torch.cat([passed, always]).to(torch.uint8).argmax(0) + rule.first

    def outcome(self, rule: Rule) -> Outcome:
        """Return what a rule gives."""
        depth = self.leaving(rule)
        right = int(self.right.gather(0, depth[None] - 1).sum())
        work = 0.0
        for number in range(1, rule.last + 1):
            cost = self.work.hidden[number - 1] + (self.work.reading[number - 1] if number >= rule.first else 0.0)
            work += cost * int((depth >= number).sum())
        return Outcome(rule, work / (self.work.full * self.samples), right)

    def shares(self, rule: Rule) -> list[float]:
        """Return which share of the samples leaves at each depth."""
        counts = torch.bincount(self.leaving(rule), minlength=self.depths + 1)[1:]
        return [count / self.samples for count in counts.tolist()]


def outcomes(table: Table) -> list[Outcome]:
    """Return the outcome of every rule whose threshold is among at most `LEVELS` of the confidences."""
    samples, depths = table.samples, table.depths
    levels = _levels(table)
    found: list[Outcome] = []
    for first in range(1, depths + 1):
        sure = table.from_depth(first)
        passed = torch.zeros(samples, dtype=torch.int64)  # by sample, how many of the levels it has reached so far
        gone = _above(passed, None, len(levels))
        right = torch.zeros(len(levels), dtype=torch.float64)
        work = torch.full((len(levels),), sum(table.work.hidden[: first - 1]) * samples, dtype=torch.float64)
        for last in range(first, depths + 1):
            of_last = table.right[last - 1].double().cpu()
            work = work + (table.work.hidden[last - 1] + table.work.reading[last - 1]) * (samples - gone)
            all_right = right + of_last.sum() - _above(passed, of_last, len(levels))
            shares = (work / (table.work.full * samples)).tolist()
            rows = zip(levels.tolist(), shares, all_right.tolist(), strict=True)
            # With one exit, at which all leave, the threshold does not matter.
            found += [
                Outcome(Rule(first, last, level), share, round(count))
                for level, share, count in list(rows)[: 1 if last == first else None]
            ]
            reached = torch.searchsorted(levels, sure[last - first].cpu().contiguous(), right=True)
            reached = torch.maximum(passed, reached)
            right = right + _above(reached, of_last, len(levels)) - _above(passed, of_last, len(levels))
            passed, gone = reached, _above(reached, None, len(levels))
    return found


def cheapest_within_loss(table: Table, loss: float) -> Outcome:
    """Return the outcome of least work whose accuracy is at most `loss` points below that of all layers."""
    full = int(table.right[-1].sum())
    enough = [one for one in outcomes(table) if one.right >= full - loss * table.samples / 100 - 1e-9]
    return min(enough, key=lambda one: (one.work, -one.right))


def best_within_budget(found: Sequence[Outcome], budget: float) -> Outcome:
    """Return the outcome of most samples right whose work is at most `budget`. Raises ValueError if there is none."""
    within = [one for one in found if one.work <= budget * (1 + 1e-9)]
    if not within:
        least = min(found, key=lambda one: one.work)
        raise ValueError(
            f"budget: got {budget:g}, but the least work is {least.work:.4f} of that of all layers: that of depth "
            f"{least.rule.last} alone; give more than that"
        )
    return max(within, key=lambda one: (one.right, -one.work))


def front(found: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that no cheaper one equals, by their work; of many, about `POINTS`."""
    kept: list[Outcome] = []
    for one in sorted(found, key=lambda one: (one.work, -one.right)):
        if not kept or one.right > kept[-1].right:
            kept.append(one)
    every = math.ceil(len(kept) / POINTS)
    return kept[:-1:every] + kept[-1:]


def _levels(table: Table) -> Tensor:
    """Return the thresholds that are tried, in ascending order."""
    known: Tensor = torch.unique(table.confidence[:-1].float().cpu())
    if len(known) > LEVELS:
        known = known[torch.linspace(0, len(known) - 1, LEVELS, dtype=torch.float64).round().long()]
    return known if len(known) else torch.zeros(1)


def _above(reached: Tensor, weights: Tensor | None, levels: int) -> Tensor:
    """Return by level how many samples, or what weight of them, have reached it: float64 (M,).

    `reached`: by sample, how many of the ascending levels it has reached.
    """
    counts = torch.bincount(reached, weights, minlength=levels + 1).double()
    return counts.flip(0).cumsum(0).flip(0)[1:]
