"""The local objectives, each against a slow reference written per sample."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.objectives.associated import Associated
from ALPackage.objectives.association import ASSOCIATIONS, Association, Reconstruction, similarity
from ALPackage.objectives.classification import ClassifierAL
from ALPackage.objectives.codes import OnCodes, OneHot, UnitNorm, to_unit
from ALPackage.objectives.part import Part

LABELS = torch.tensor([3, 0, 0, 4, 2, 3])


def codes() -> tuple[Tensor, Tensor]:
    """Return bridged outputs (6, 7) and a table of five codes (5, 7)."""
    return torch.randn(6, 7), torch.randn(5, 7)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two vectors, number by number."""
    dot: float = sum(p * q for p, q in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(p * p for p in a.tolist())) / math.sqrt(sum(q * q for q in b.tolist()))


def negative_log_share(scores: list[float], own: int) -> float:
    """Return -log softmax(scores)[own]."""
    return math.log(sum(math.exp(score) for score in scores)) - scores[own]


def slow_association(kind: str, bridged: Tensor, table: Tensor, temperature: float) -> float:
    """Return the association of each sample in turn, averaged."""
    total = 0.0
    for out, label in zip(bridged, LABELS.tolist(), strict=True):
        if kind == "mse":
            total += sum((p - q) ** 2 for p, q in zip(out.tolist(), table[label].tolist(), strict=True)) / len(out)
        elif kind == "cosine":
            total += 1.0 - cosine(out, table[label])
        else:
            total += negative_log_share([cosine(out, code) / temperature for code in table], label)
    return total / len(bridged)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("kind", ASSOCIATIONS)
def test_each_association_equals_its_slow_reference(kind: str, temperature: float) -> None:
    bridged, table = codes()
    loss = Association(kind, temperature)(bridged, (table, LABELS))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(slow_association(kind, bridged, table, temperature), rel=1e-5)


@pytest.mark.parametrize("kind", ASSOCIATIONS)
def test_smoothing_gives_its_share_to_all_classes_alike(kind: str) -> None:
    bridged, table = codes()
    smooth = Association(kind, 0.2, 0.3)(bridged, (table, LABELS)).item()
    if kind == "contrastive":
        per_class = []
        for out, label in zip(bridged, LABELS.tolist(), strict=True):
            scores = [cosine(out, code) / 0.2 for code in table]
            losses = [negative_log_share(scores, own) for own in range(len(table))]
            per_class.append(0.7 * losses[label] + 0.3 * sum(losses) / len(losses))
        assert smooth == pytest.approx(sum(per_class) / len(per_class), rel=1e-5)
    else:
        mean = table.mean(0)
        moved = torch.stack([0.7 * code + 0.3 * mean for code in table])
        assert smooth == pytest.approx(slow_association(kind, bridged, moved, 0.2), rel=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing: got"):
        Association("mse", smoothing=smoothing)


def test_the_contrastive_association_is_cross_entropy_over_the_cosines() -> None:
    bridged, table = codes()
    cosines = torch.stack([F.cosine_similarity(out[None], table) for out in bridged])
    expected = F.cross_entropy(cosines / 0.2, LABELS)
    torch.testing.assert_close(Association()(bridged, (table, LABELS)), expected)


@pytest.mark.parametrize("kind", ASSOCIATIONS)
def test_the_association_is_least_at_the_own_code_and_has_a_gradient_elsewhere(kind: str) -> None:
    _, table = codes()
    loss = Association(kind)
    at_own = loss(table[LABELS], (table, LABELS))
    bridged = table[(LABELS + 1) % 5].clone().requires_grad_()
    elsewhere = loss(bridged, (table, LABELS))
    elsewhere.backward()
    assert at_own < elsewhere
    assert bridged.grad is not None
    assert bridged.grad.any()


@pytest.mark.parametrize("kind", ["cosine", "contrastive"])
def test_angles_alone_count_where_they_should(kind: str) -> None:
    bridged, table = codes()
    one = Association(kind)(bridged, (table, LABELS))
    torch.testing.assert_close(Association(kind)(17 * bridged, (table, LABELS)), one)


@pytest.mark.parametrize("kind", ASSOCIATIONS)
def test_a_code_of_zero_gives_no_nan(kind: str) -> None:
    bridged = torch.zeros(6, 7, requires_grad=True)
    loss = Association(kind)(bridged, (torch.randn(5, 7), LABELS))
    loss.backward()
    assert loss.isfinite()
    assert bridged.grad is not None
    assert bridged.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["", "MSE", "contrast", "classes"])
def test_an_unknown_association_lists_the_right_ones(kind: str) -> None:
    with pytest.raises(ValueError, match="mse, cosine, contrastive"):
        Association(kind)


@pytest.mark.parametrize("temperature", [0.0, -0.2])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Association("contrastive", temperature)


def test_reconstructions_equal_their_slow_references() -> None:
    rows, table = torch.randn(5, 7), torch.randn(5, 7)
    target = (table, LABELS)
    mse = sum(((a - b) ** 2).mean().item() for a, b in zip(rows, table, strict=True)) / 5
    assert Reconstruction("mse")((rows, LABELS), target).item() == pytest.approx(mse, rel=1e-5)
    contrast = sum(negative_log_share([cosine(rows[i], table[j]) / 0.5 for j in range(5)], i) for i in range(5)) / 5
    assert Reconstruction("contrastive", 0.5)((rows, LABELS), target).item() == pytest.approx(contrast, rel=1e-5)
    logits = torch.randn(5, 5)
    classes = sum(negative_log_share((logits[i] / 0.5).tolist(), i) for i in range(5)) / 5
    found = Reconstruction("classes", 0.5)((logits, LABELS), (torch.eye(5), LABELS))
    assert found.item() == pytest.approx(classes, rel=1e-5)


def test_the_reconstruction_of_classes_goes_to_zero_as_the_logits_grow() -> None:
    """Guards a bug: with logits held within [-1, 1] cross-entropy has a floor far above zero."""
    logits = 50 * torch.eye(5)
    assert Reconstruction("classes")((logits, LABELS), (torch.eye(5), LABELS)).item() < 1e-6


def test_an_unknown_reconstruction_is_refused() -> None:
    with pytest.raises(ValueError, match="classes, mse or contrastive"):
        Reconstruction("cosine")


def test_class_codes_map_a_table_and_plain_codes_alike() -> None:
    module = nn.Linear(4, 3)
    wrapped = OnCodes(module)
    table, plain = torch.randn(5, 4), torch.randn(6, 4)
    coded = wrapped((table, LABELS))
    assert isinstance(coded, tuple)
    assert torch.equal(coded[0], module(table))
    assert coded[1] is LABELS
    assert torch.equal(wrapped(plain), module(plain))


def test_encoding_the_table_equals_encoding_one_hot_rows() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.Tanh())
    coded = OnCodes(module)(OneHot(5)(LABELS))
    torch.testing.assert_close(coded[0][LABELS], module(F.one_hot(LABELS, 5).float()))


def test_one_hot_gives_the_identity_and_the_labels() -> None:
    target = OneHot(5)
    table, labels = target(LABELS)
    assert torch.equal(table, torch.eye(5))
    assert labels is LABELS
    assert target.state_dict() == {}
    assert target(LABELS.to("meta"))[0].device.type == "meta"


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 4)])
def test_unit_length_has_the_values_and_the_gradient_of_torch_s(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    wanted = torch.randn(shape)
    found, expected = to_unit(x), F.normalize(x, dim=-1)
    torch.testing.assert_close(found, expected)
    (one,) = torch.autograd.grad((found * wanted).sum(), x)
    (other,) = torch.autograd.grad((expected * wanted).sum(), x)
    torch.testing.assert_close(one, other)
    assert torch.autograd.gradgradcheck(to_unit, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))


def test_codes_of_unit_length_need_no_scaling() -> None:
    bridged, table = map(to_unit, codes())
    for loss in (partial(Association, "contrastive"), partial(Reconstruction, "contrastive")):
        rows = (bridged, (table, LABELS)) if loss.func is Association else ((table, LABELS), (table, LABELS))
        torch.testing.assert_close(loss(unit=True)(*rows), loss()(*rows))
    torch.testing.assert_close(similarity(bridged, table, unit=True), similarity(bridged, table))


def test_unit_norm_scales_to_length_one_and_survives_zero() -> None:
    out = UnitNorm()(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert out.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


def test_probabilities_are_those_of_the_reconstruction_loss() -> None:
    decoded, table = torch.randn(5, 5), torch.eye(5)
    loss = Reconstruction("classes", 0.2)
    target = (table, torch.arange(5))
    shares = loss.probabilities(decoded)
    assert float(loss((decoded, target[1]), target)) == pytest.approx(-float(shares.diagonal().log().mean()))
    torch.testing.assert_close(shares.sum(1), torch.ones(5))
    regression = Reconstruction("mse").probabilities(torch.tensor([[0.6, -0.2, 0.2], [-1.0, -0.5, 0.0]]))
    torch.testing.assert_close(regression, torch.tensor([[0.75, 0.0, 0.25], [1 / 3, 1 / 3, 1 / 3]]))


def test_a_classifier_reads_its_predictions_as_its_loss_does() -> None:
    def first_layer(**settings: object) -> ClassifierAL:
        losses = Associated(code_dim=4, **settings)  # type: ignore[arg-type]
        return losses.layers([Part("only", nn.Linear(3, 4), lambda width: nn.Linear(4, width))], 3)["only"]

    prediction = torch.tensor([[0.5, 0.25, -0.5]])
    expected = torch.softmax(prediction / 0.4, dim=1)
    torch.testing.assert_close(first_layer(temperature=0.4).probabilities(prediction), expected)
    plain = first_layer(association="mse", temperature=0.4)
    torch.testing.assert_close(plain.probabilities(prediction), torch.softmax(prediction, dim=1))
    shares = first_layer(association="mse", auto_encoder="mse").probabilities(prediction)
    torch.testing.assert_close(shares, torch.tensor([[2 / 3, 1 / 3, 0.0]]))
    own = plain
    own.ae.cri = nn.MSELoss()
    torch.testing.assert_close(own.probabilities(prediction), torch.softmax(prediction, dim=1))
