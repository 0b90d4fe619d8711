"""The search of thresholds against trying each rule by itself, sample by sample."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from ALPackage.exits import search
from ALPackage.exits.search import Outcome, Rule, Table, best_within_budget, cheapest_within_loss, front, outcomes
from ALPackage.exits.work import Work

WORK = Work([10.0, 30.0, 25.0, 20.0], [4.0, 5.0, 6.0, 15.0])


def table(streaks: bool = False, samples: int = 50) -> Table:
    generator = torch.Generator().manual_seed(1)
    right = torch.rand(4, samples, generator=generator) < torch.tensor([0.5, 0.6, 0.8, 0.75])[:, None]
    if streaks:
        classes = torch.randint(2, (4, samples), generator=generator).tolist()
        runs = [[1.0] * samples]
        for before, now in pairwise(classes):
            same = (one == two for one, two in zip(before, now, strict=True))
            runs.append([1 + run * agree for run, agree in zip(runs[-1], same, strict=True)])
        return Table(torch.tensor(runs), right, WORK, streaks=True)
    # Of two digits, so that several samples are as sure.
    return Table((100 * torch.rand(4, samples, generator=generator)).round() / 100, right, WORK)


def slowly(known: Table, rule: Rule) -> Outcome:
    """Return the outcome of a rule, sample by sample."""
    work, right = 0.0, 0
    for sample in range(known.samples):
        for depth in range(1, 5):
            work += WORK.hidden[depth - 1]
            if depth < rule.first:
                continue
            work += WORK.reading[depth - 1]
            confidence = float(known.confidence[depth - 1, sample])
            if known.streaks:  # depths before the first exit are not looked at
                confidence = min(confidence, depth - rule.first + 1)
            if depth == rule.last or confidence >= rule.threshold:
                right += bool(known.right[depth - 1, sample])
                break
    return Outcome(rule, work / 100.0 / known.samples, right)


@pytest.mark.parametrize("streaks", [False, True])
def test_every_rule_has_the_outcome_that_trying_it_has(streaks: bool) -> None:
    known = table(streaks)
    found = outcomes(known)
    assert {(one.rule.first, one.rule.last) for one in found} == {(a, b) for a in range(1, 5) for b in range(a, 5)}
    for one in found:
        twin = slowly(known, one.rule)
        assert one.right == twin.right
        assert one.work == pytest.approx(twin.work)
        again = known.outcome(one.rule)
        assert (again.right, again.work) == (one.right, pytest.approx(one.work))


def test_fixed_depths_are_among_the_rules() -> None:
    known = table()
    fixed = {one.rule.first: one for one in outcomes(known) if one.rule.first == one.rule.last}
    for depth, one in fixed.items():
        assert one.work == pytest.approx(WORK.at(depth))
        assert one.right == int(known.right[depth - 1].sum())
        assert known.shares(one.rule) == [float(number == depth) for number in range(1, 5)]


def test_thresholds_of_a_rule() -> None:
    assert Rule(2, 3, 0.7).thresholds(5) == (math.inf, 0.7, 0.0, math.inf)
    assert Rule(1, 4, 0.7).thresholds(4) == (0.7, 0.7, 0.7)
    assert Rule(4, 4, 0.7).thresholds(4) == (math.inf,) * 3


def test_shares_add_up() -> None:
    known = table()
    shares = known.shares(Rule(1, 3, 0.6))
    assert sum(shares) == pytest.approx(1)
    assert shares[3] == 0
    assert all(shares[:3])


def test_the_best_within_a_budget_and_the_cheapest_within_a_loss() -> None:
    known = table()
    found = outcomes(known)
    for budget in (0.2, 0.5, 1.0):
        best = best_within_budget(found, budget)
        assert best.work <= budget
        assert best.right == max(one.right for one in found if one.work <= budget)
    full = int(known.right[-1].sum())
    for loss in (0.0, 4.0, 20.0):
        cheapest = cheapest_within_loss(known, loss)
        enough = [one for one in found if one.right >= full - loss / 100 * known.samples]
        assert cheapest.work == min(one.work for one in enough)
    with pytest.raises(ValueError, match=r"the least work is 0\.1400 of .* depth 1"):
        best_within_budget(found, 0.1)


def test_the_front_is_what_nothing_cheaper_equals() -> None:
    found = outcomes(table())
    kept = front(found)
    for one in kept:
        assert not [other for other in found if other.work < one.work and other.right >= one.right]
    assert max(one.right for one in found) == kept[-1].right
    assert min(one.work for one in found) == kept[0].work


def test_long_tables_are_searched_at_some_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    known = table(samples=200)
    monkeypatch.setattr(search, "LEVELS", 10)
    monkeypatch.setattr(search, "POINTS", 3)
    found = outcomes(known)
    assert len({one.rule.threshold for one in found}) == 10
    assert len(front(found)) <= 4
    assert front(found)[-1].right == max(one.right for one in found)


def test_a_single_depth() -> None:
    one = Table(torch.rand(1, 5), torch.tensor([[True, False, True, True, False]]), Work([7.0], [3.0]))
    assert [(found.work, found.right) for found in outcomes(one)] == [(1.0, 3)]
    assert cheapest_within_loss(one, 0.0).rule.thresholds(1) == ()
