"""Information regularization: its terms against a slow reference, and classifiers that only look on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ALPackage.objectives.deinfo import DeInfoLayer, InformationRegularization, information
from ALPackage.objectives.part import Part

LABELS = torch.tensor([0, 2, 1, 0])


def layer_of(**options: float) -> DeInfoLayer:
    torch.manual_seed(0)
    f = nn.Sequential(nn.Linear(6, 7), nn.ReLU())
    objective = InformationRegularization(code_dim=5, **options)  # type: ignore[arg-type]
    return objective.layers([Part("one", f, lambda width: nn.Linear(7, width))], 3)["one"]


def slow(projection: Tensor) -> tuple[float, float]:
    """Return the terms of variance and covariance, unit by unit."""
    units = [[value / math.hypot(*row) for value in row] for row in projection.double().tolist()]
    rows, width = len(units), len(units[0])
    columns = [[row[unit] for row in units] for unit in range(width)]
    centered = [[value - sum(column) / rows for value in column] for column in columns]
    deviations = [math.sqrt(sum(value**2 for value in column) / (rows - 1) + 1e-7) for column in centered]
    variance = sum(max(0.0, 1 - one) for one in deviations) / width / rows
    covariances = [
        sum(a * b for a, b in zip(centered[i], centered[j], strict=True)) / rows
        for i in range(width)
        for j in range(width)
        if i != j
    ]
    return variance, sum(one**2 for one in covariances) / width


def test_the_terms_equal_their_slow_reference() -> None:
    projection = torch.randn(4, 5)
    found = information(projection, LABELS, 3)
    variance, covariance = slow(projection)
    assert found["variance"].item() == pytest.approx(variance, rel=1e-5)
    assert found["covariance"].item() == pytest.approx(covariance, rel=1e-4)


def test_one_sample_alone_and_a_projection_of_zero_give_no_nan() -> None:
    for projection in (torch.randn(1, 5), torch.zeros(4, 5)):
        projection.requires_grad_()
        loss = torch.stack(list(information(projection, LABELS[: len(projection)], 3).values())).sum()
        loss.backward()
        assert loss.isfinite()
        assert projection.grad is not None
        assert projection.grad.isfinite().all()


def test_a_projection_without_length_gets_no_gradient_and_the_others_keep_theirs() -> None:
    gradients = []
    for short in (0.0, 1e-20, 1e-9):
        projection = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
        projection[1] *= short
        projection.requires_grad_()
        torch.stack(list(information(projection, LABELS, 3).values())).sum().backward()
        assert projection.grad is not None
        assert not projection.grad[1].any()
        gradients.append(projection.grad)
    assert gradients[0][0].any()
    assert all(torch.equal(one, gradients[0]) for one in gradients)


def test_no_gradient_of_a_probe_reaches_the_network() -> None:
    layer = layer_of(variance=0.0, invariance=0.0, covariance=0.0)
    x = torch.randn(4, 6)
    layer(x, LABELS)
    layer.backward()
    assert not any(parameter.grad.any() for parameter in layer.f.parameters() if parameter.grad is not None)
    classifier = layer.heads["classifier"].weight
    assert isinstance(classifier, Tensor)
    assert classifier.grad is not None
    assert classifier.grad.any()


def test_probes_learn_beside_the_terms_and_do_not_change_what_they_do() -> None:
    x = torch.randn(4, 6)
    one, other = layer_of(), layer_of()
    with torch.no_grad():
        other.heads["classifier"].weight.mul_(3)  # type: ignore[operator,union-attr]
    for layer in (one, other):
        layer(x, LABELS)
        layer.backward_and_update()
    assert torch.equal(one.f[0].weight, other.f[0].weight)  # type: ignore[arg-type,index]
    before = one.losses()["probe"]
    for _ in range(50):
        one(x, LABELS)
        one.backward_and_update()
    assert one.losses()["probe"] < before


def test_each_term_has_its_weight() -> None:
    x = torch.randn(4, 6)
    plain, weighted = layer_of(), layer_of(variance=2.0, invariance=3.0, covariance=0.5)
    for layer in (plain, weighted):
        layer(x, LABELS)
    factors = {"variance": 2.0, "invariance": 3.0, "covariance": 0.5, "probe": 1.0}
    for name, factor in factors.items():
        torch.testing.assert_close(weighted.losses()[name], factor * plain.losses()[name])
