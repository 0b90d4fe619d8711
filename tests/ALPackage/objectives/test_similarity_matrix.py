"""Similarities of a batch, against a slow reference, and what autocast and dead samples do to them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ALPackage.objectives.similarity_matrix import label_similarity, similarity_matrix, similarity_mismatch

LABELS = torch.tensor([0, 2, 1, 0])


def slow(features: Tensor) -> list[list[float]]:
    """Return the cosines of centered rows, number by number."""
    rows = [[value - sum(row) / len(row) for value in row] for row in features.double().tolist()]
    return [
        [sum(a * b for a, b in zip(p, q, strict=True)) / math.hypot(*p) / math.hypot(*q) for q in rows] for p in rows
    ]


def test_it_equals_its_slow_reference() -> None:
    features = torch.randn(4, 6)
    torch.testing.assert_close(similarity_matrix(features), torch.tensor(slow(features)))


@pytest.mark.parametrize("n_classes", [3, 7])
def test_that_of_labels_is_that_of_their_one_hot_codes(n_classes: int) -> None:
    expected = similarity_matrix(F.one_hot(LABELS, n_classes).float())
    torch.testing.assert_close(label_similarity(LABELS, n_classes, torch.float32), expected)


@pytest.mark.parametrize(
    "same", [torch.full((6,), 0.5), torch.full((6,), 0.1), 7 + 1e-6 * torch.eye(6)[0], 1e-8 * torch.arange(6)]
)
def test_a_sample_whose_features_are_all_the_same_gets_no_gradient(same: Tensor) -> None:
    """Guards two bugs: the authors' formula gives infinity here, and rounding left a gradient of 1e7."""
    features = torch.randn(4, 6)
    features[1] = same
    assert not similarity_matrix(features)[1].any()
    features.requires_grad_()
    loss = similarity_mismatch(features, LABELS, 3)
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad[0].any()
    assert not features.grad[1].any()


def test_it_is_in_full_precision_under_autocast() -> None:
    features = torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = similarity_matrix(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, similarity_matrix(features.float()))
