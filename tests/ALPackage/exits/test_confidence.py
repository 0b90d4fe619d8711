"""Confidences and temperatures, on numbers that can be worked out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ALPackage.exits.confidence import Streak, certainty, confidences, fit_temperature


def test_confidences_of_known_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [1.0, 1e-30, 1e-30]]).log()
    assert certainty("probability", logits, 1.0).tolist() == pytest.approx([0.5, 1 / 3, 1.0])
    assert certainty("margin", logits, 1.0).tolist() == pytest.approx([0.25, 0.0, 1.0])
    entropy = 1.5 * math.log(2) / math.log(3)
    assert certainty("entropy", logits, 1.0).tolist() == pytest.approx([1 - entropy, 0.0, 1.0], abs=1e-6)
    assert torch.equal(certainty("probability", 3 * logits, 3.0), certainty("probability", logits, 1.0))


@pytest.mark.parametrize("kind", ["probability", "margin", "entropy"])
def test_bounds_hold_and_no_number_is_no_confidence(kind: str) -> None:
    logits = torch.cat([100 * torch.randn(50, 4), torch.zeros(1, 4), torch.full((1, 4), math.nan)])
    found = certainty(kind, logits.bfloat16(), 0.1)
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert found[-1] == 0


def test_a_streak_counts_depths_that_agree() -> None:
    classes = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 1, 0], [2, 1, 0]])
    logits = [F.one_hot(row, 3).float() for row in classes]
    expected = [[1, 1, 1], [2, 1, 2], [3, 2, 1], [1, 3, 2]]
    assert confidences("agreement", logits, [1.0] * 4).tolist() == expected
    streak = Streak()
    streak.add(logits[0])
    streak.keep(torch.tensor([True, False, True]))
    assert streak.add(logits[1][[0, 2]]).tolist() == [2, 2]


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_a_temperature_is_found_again(scale: float) -> None:
    """Labels are drawn from softmax(logits); after a scaling, dividing by the scale is what fits them best."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    found = fit_temperature(scale * logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    best = F.cross_entropy(scale * logits / found, labels)
    for other in (0.98 * found, 1.02 * found):
        assert best < F.cross_entropy(scale * logits / other, labels)


def test_a_temperature_is_finite_and_above_zero_whatever_the_labels() -> None:
    logits = 5 * F.one_hot(torch.arange(4)).float()
    right, wrong = fit_temperature(logits, torch.arange(4)), fit_temperature(logits, torch.arange(4).roll(1))
    assert 0.1 < right < 5
    assert 100 < wrong < math.inf
