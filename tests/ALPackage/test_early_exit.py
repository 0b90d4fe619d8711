"""Early exit against its slow twin, which computes all depths and picks; what it costs; what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ALPackage import AE, AL, ENC, ALStack, EarlyExit, Exits, to_al
from ALPackage.errors import LayerError
from models import build_vision
from tests.models.small_text import al, text

KINDS = ("probability", "margin", "entropy", "agreement")


def layer(x: int, y: int, hidden: int = 8, code: int = 5) -> AL:
    f = nn.Sequential(nn.Linear(x, hidden), nn.BatchNorm1d(hidden), nn.Tanh())
    return AL(ENC(f, nn.Linear(hidden, code)), AE(nn.Linear(y, code), nn.Linear(code, y)))


def four() -> ALStack:
    """Return a stack of four layers and three classes, whose logits are far enough apart to be sure of some rows."""
    torch.manual_seed(4)
    stack = ALStack([layer(6, 3), *(layer(8, 5) for _ in range(3))]).eval()
    with torch.no_grad():
        for one in stack:
            one.ae.h.weight.mul_(3.0)
    return stack


def sure(kind: str, logits: Sequence[float], temperature: float) -> float:
    """Return the confidence of one row, from its definition."""
    powers = [math.exp(value / temperature) for value in logits]
    p = sorted((power / sum(powers) for power in powers), reverse=True)
    if kind == "entropy":
        return 1 + sum(one * math.log(one) for one in p if one > 0) / math.log(len(p))
    return p[0] if kind == "probability" else p[0] - p[1]


def slowly(rule: EarlyExit, stack: ALStack, x: Any) -> Exits:
    """Return what `predict` does, row by row, from the predictions of all depths."""
    by_depth = stack.inference_by_depth(x)
    last = len(by_depth)
    given = rule.temperature
    temperatures = [given] * last if isinstance(given, float) else list(given)  # type: ignore[arg-type]
    found: list[tuple[Tensor, int]] = []
    for row in range(len(by_depth[0])):
        classes: list[int] = []
        for depth, logits in enumerate(by_depth, start=1):
            threshold = 0.0 if depth == last else rule.thresholds(last)[depth - 1]
            if threshold == math.inf:
                continue
            own = logits[row]
            classes.append(int(own.argmax()))
            alike = next((n for n, one in enumerate(reversed(classes)) if one != classes[-1]), len(classes))
            agreed = rule.confidence == "agreement"
            confidence = alike if agreed else sure(rule.confidence, own.tolist(), temperatures[depth - 1])
            if depth == last or confidence >= threshold:
                found.append((own, depth))
                break
    return Exits(torch.stack([own for own, _ in found]), torch.tensor([depth for _, depth in found]))


def middle(kind: str, stack: ALStack, x: Any) -> float:
    """Return a threshold that some rows pass at the first depth and others do not, and none by a rounding."""
    if kind == "agreement":
        return 2.0
    values = sorted(sure(kind, row, 1.0) for row in stack.inference_by_depth(x)[0].tolist())
    half = len(values) // 2
    return (values[half] + values[half - 1]) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_leaves_where_the_slow_twin_says(kind: str) -> None:
    stack, x = four(), torch.randn(60, 6)
    rule = EarlyExit(middle(kind, stack, x), kind)
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    assert len(found.depth.unique()) > 1 + (kind == "agreement")
    assert torch.allclose(found.prediction, twin.prediction, atol=1e-5)
    assert torch.equal(stack.inference(x, exit=rule), found.prediction)
    for row, depth in enumerate(found.depth.tolist()):
        assert torch.allclose(found.prediction[row], stack.inference(x, depth=depth)[row], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_per_depth_and_exits_that_are_not_tried(kind: str) -> None:
    stack, x = four(), torch.randn(60, 6)
    middling = middle(kind, stack, x)
    rule = EarlyExit([math.inf, middling, math.inf], kind, [1.0, 0.7, 1.0, 1.0])
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    # Agreement counts the exits that are tried, and at the first of these there is one alone.
    assert found.depth.unique().tolist() == ([4] if kind == "agreement" else [2, 4])


def test_it_is_inference_bit_for_bit_where_nothing_leaves_early() -> None:
    stack, x = four(), torch.randn(9, 6)
    for threshold in (1.5, math.inf):
        found = EarlyExit(threshold).predict(stack, x)
        assert torch.equal(found.prediction, stack.inference(x))
        assert found.depth.tolist() == [4] * 9
    one = EarlyExit([math.inf, 0.0, math.inf]).predict(stack, x)
    assert torch.equal(one.prediction, stack.inference(x, depth=2))
    assert one.depth.tolist() == [2] * 9


@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_texts_take_their_lengths_along(model: str) -> None:
    torch.manual_seed(0)
    stack, x = al(model).eval(), text()
    rule = EarlyExit(middle("probability", stack, x), temperature=1.0)
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    assert 1 in found.depth.tolist()
    assert found.depth.max() > 1
    assert torch.allclose(found.prediction, twin.prediction, atol=1e-5)


@pytest.mark.parametrize("model", ["vgg", "resnet"])
def test_images(model: str) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"association": "contrastive", "temperature": 0.2, "lr": 1e-3, "weight_decay": 0.0}
    stack = build_vision(
        model, "al", n_classes=4, in_channels=1, image_size=16, width=0.05, enc_dim=16, ae_dim=8, **settings
    )
    assert isinstance(stack, ALStack)
    x = torch.randn(12, 1, 16, 16)
    rule = EarlyExit(middle("probability", stack.eval(), x))
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    assert len(found.depth.unique()) > 1
    assert torch.allclose(found.prediction, twin.prediction, atol=1e-4)


class Dicts(nn.Module):
    """Reads and returns a dict, with a scalar that all rows share."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": torch.tanh(self.map(x["x"])) * x["scale"], "scale": x["scale"]}


class OfDict(nn.Linear):
    def forward(self, x: Any) -> Tensor:
        return super().forward(x["x"])


def test_dicts_and_what_all_rows_share() -> None:
    torch.manual_seed(2)
    ys = [3, 5, 5]
    layers = [AL(ENC(Dicts(), OfDict(6, 5)), AE(nn.Linear(y, 5), nn.Linear(5, y))) for y in ys]
    stack = ALStack(layers).eval()
    x = {"x": torch.randn(20, 6), "scale": torch.tensor(2.0)}
    rule = EarlyExit(middle("margin", stack, x), "margin")
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    assert len(found.depth.unique()) > 1


class Sideways(AL):
    """Has the rows in dimension 1 of its input, as layers of (T, B, D) do."""

    def rows(self, x: Any) -> int:
        return int(x.shape[1])

    def split(self, x: Any, y: Any, start: int, stop: int) -> tuple[Any, Any]:
        return x[:, start:stop], y

    def join(self, parts: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        return torch.cat([x for x, _ in parts], dim=1), None


class Last(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[-1])


def test_a_layer_that_has_its_rows_elsewhere() -> None:
    torch.manual_seed(3)
    parts = [(ENC(nn.Linear(6, 6), Last(6, 5)), AE(nn.Linear(y, 5), nn.Linear(5, y))) for y in (3, 5, 5)]
    stack = ALStack([Sideways(*pair) for pair in parts]).eval()
    x = torch.randn(4, 30, 6)
    rule = EarlyExit(middle("probability", stack, x))
    found, twin = rule.predict(stack, x), slowly(rule, stack, x)
    assert torch.equal(found.depth, twin.depth)
    assert len(found.depth.unique()) > 1
    assert torch.allclose(found.prediction, twin.prediction, atol=1e-5)


def test_no_rows_and_one_row() -> None:
    stack = four()
    empty = EarlyExit(0.9).predict(stack, torch.randn(0, 6))
    assert empty.prediction.shape == (0, 3)
    assert empty.depth.shape == (0,)
    assert EarlyExit(0.0).predict(stack, torch.randn(1, 6)).depth.tolist() == [1]


def test_logits_that_are_no_numbers_are_not_sure() -> None:
    stack, x = four(), torch.randn(5, 6)
    x[2] = math.nan
    for kind in ("probability", "margin", "entropy"):
        found = EarlyExit(0.01, kind).predict(stack, x)
        assert found.depth[2] == 4
        assert found.prediction[2].isnan().all()


Labeled = list[tuple[Tensor, Tensor]]


@cache
def trained() -> tuple[ALStack, Labeled, Labeled]:
    """Return a stack that has learned noisy clusters, and batches to validate and to test on."""
    torch.manual_seed(5)
    centers = torch.randn(20, 6)  # four of each class: the first layer alone cannot tell all of them

    def batches(count: int) -> Labeled:
        which = torch.randint(20, (count, 80))
        return list(zip(centers[which] + 0.5 * torch.randn(count, 80, 6), which % 5, strict=True))

    blocks = [nn.Sequential(nn.Linear(x, 32), nn.BatchNorm1d(32), nn.Tanh()) for x in (6, 32, 32, 32)]
    stack = to_al(blocks, 5, example=torch.randn(2, 6), lr=1e-2, code_dim=8, bridge="linear")
    for x, labels in batches(100):
        stack(x, labels)
        stack.backward_and_update()
    return stack.eval(), batches(5), batches(5)


def operations(function: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def measured(rule: EarlyExit, stack: ALStack, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the share of the operations that are really done, and the accuracy in percent."""
    done = sum(operations(lambda x=x: rule.predict(stack, x)) for x, _ in batches)
    full = sum(operations(lambda x=x: stack.inference(x)) for x, _ in batches)
    right = sum(int((rule.predict(stack, x).prediction.argmax(1) == labels).sum()) for x, labels in batches)
    return done / full, 100 * right / sum(len(labels) for _, labels in batches)


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_is_kept_and_what_a_curve_says_is_what_happens(kind: str) -> None:
    stack, validation, test = trained()
    for budget in (0.6, 1.0):
        rule = EarlyExit.calibrate(stack, iter(validation), budget=budget, confidence=kind)
        work, accuracy = measured(rule, stack, validation)
        assert work <= budget + 1e-6
        fixed = [
            measured(EarlyExit([0.0 if d == k else math.inf for d in (1, 2, 3)]), stack, validation) for k in (1, 2)
        ]
        assert all(accuracy >= other for cost, other in fixed if cost <= budget)
    points = EarlyExit.curve(stack, validation, confidence=kind)
    assert [point.work for point in points] == sorted(point.work for point in points)
    assert [point.accuracy for point in points] == sorted(point.accuracy for point in points)
    for batches, curve in ((validation, points), (test, EarlyExit.curve(stack, validation, test, confidence=kind))):
        for point in curve[:: max(1, len(curve) // 3)]:
            assert (point.work, point.accuracy) == pytest.approx(measured(point.exit, stack, batches), rel=1e-6)


def test_a_loss_is_kept_with_the_least_work() -> None:
    stack, validation, _ = trained()
    _, full = measured(EarlyExit(math.inf), stack, validation)
    before = math.inf
    for loss in (0.0, 1.0, 5.0, 100.0):
        work, accuracy = measured(EarlyExit.calibrate(stack, validation, loss=loss), stack, validation)
        assert accuracy >= full - loss - 1e-6
        assert work <= before
        before = work
    assert before == pytest.approx(measured(EarlyExit([0.0, 0.0, 0.0]), stack, validation)[0])


def test_temperatures_are_fitted_per_depth_and_change_no_prediction() -> None:
    stack, validation, _ = trained()
    rule = EarlyExit.calibrate(stack, validation, budget=0.7)
    assert isinstance(rule.temperature, tuple)
    assert len(set(rule.temperature)) == 4
    x = validation[0][0]
    depths = rule.predict(stack, x).depth
    assert len(depths.unique()) > 1
    assert not torch.equal(EarlyExit(rule.threshold, temperature=100.0).predict(stack, x).depth, depths)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"threshold": -0.1}, "threshold: got -0.1"),
        ({"threshold": math.nan}, "threshold: got nan"),
        ({"threshold": "high"}, "threshold: got 'high'"),
        ({"threshold": None}, "threshold: got None; expected 0 or more"),
        ({"threshold": [True]}, "threshold: got True"),
        ({"threshold": 0.5, "confidence": "logit"}, "confidence: got 'logit'; expected one of probability"),
        ({"threshold": 0.5, "temperature": 0.0}, "temperature: got 0.0"),
        ({"threshold": 0.5, "temperature": [1.0, math.inf]}, "temperature: got inf"),
    ],
)
def test_what_an_exit_may_not_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EarlyExit(**arguments)


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_numbers_of_any_library(kind: Any) -> None:
    assert EarlyExit(kind(0.5), temperature=kind(2.0)) == EarlyExit(0.5, temperature=2.0)
    for pair in ([kind(0.5)] * 2, torch.tensor([0.5, 0.5]), np.array([0.5, 0.5])):
        assert EarlyExit(pair) == EarlyExit([0.5, 0.5])


def test_batches_and_labels_that_cannot_be_are_told() -> None:
    stack, validation, _ = trained()
    x, labels = validation[0]
    with pytest.raises(ValueError, match=r"expected batches of \(x, labels int64 \(B,\)\), such as a list of one"):
        EarlyExit.calibrate(stack, (x, labels), budget=0.5)
    with pytest.raises(ValueError, match="got labels from 99 to 99; expected 0 to"):
        EarlyExit.calibrate(stack, [(x, torch.full_like(labels, 99))], budget=0.5)
    with pytest.raises(ValueError, match="got no test batches"):
        EarlyExit.curve(stack, validation, test=[])
    with pytest.raises(TypeError, match=r"inference: got exit=0\.5; expected an EarlyExit"):
        stack.inference(x, exit=0.5)


def test_numbers_that_do_not_fit_the_stack() -> None:
    stack, x = four(), torch.randn(5, 6)
    with pytest.raises(ValueError, match="got 4 thresholds; 4 layers need one for each but the last: 3"):
        EarlyExit([0.5] * 4).predict(stack, x)
    with pytest.raises(ValueError, match="got 3 temperatures; 4 layers need as many: 4"):
        EarlyExit(0.5, temperature=[1.0] * 3).predict(stack, x)
    with pytest.raises(ValueError, match="depth and exit"):
        stack.inference(x, depth=2, exit=EarlyExit(0.5))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give either budget"),
        ({"budget": 0.5, "loss": 1.0}, "give either budget"),
        ({"budget": 0.0}, "budget: got 0.0"),
        ({"budget": 1.5}, "budget: got 1.5"),
        ({"budget": "0.5"}, "budget: got '0.5'; expected a share"),
        ({"loss": -1.0}, "loss: got -1.0"),
        ({"budget": 0.01}, r"the least work is 0\.\d+ of that of all layers: that of depth 1 alone"),
        ({"budget": 0.5, "confidence": "logit"}, "confidence: got 'logit'"),
    ],
)
def test_what_calibrate_refuses(arguments: dict[str, Any], says: str) -> None:
    stack, validation, _ = trained()
    with pytest.raises(ValueError, match=says):
        EarlyExit.calibrate(stack, validation, **arguments)


def test_what_cannot_leave_early_is_refused() -> None:
    stack, x = four(), torch.randn(5, 6)
    with pytest.raises(ValueError, match="no batches"):
        EarlyExit.calibrate(stack, [], budget=0.5)
    with pytest.raises(ValueError, match=r"layer 'layer_1' is in training mode.*stack.eval\(\)"):
        EarlyExit(0.5).predict(stack.train(), x)
    wide = ALStack([AL(ENC(nn.Linear(6, 6), nn.Linear(6, 5)), AE(nn.Linear(1, 5), nn.Linear(5, 1)))]).eval()
    with pytest.raises(ValueError, match=r"depth 1 for 5 rows is shape \(5, 1\); expected logits"):
        EarlyExit(0.5).predict(wide, x)
    with pytest.raises(LayerError, match="the rows of a batch cannot be told"):
        EarlyExit(0.5).predict(stack.eval(), (torch.randn(5, 6), torch.randn(4, 6)))
