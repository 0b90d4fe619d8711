"""One AL layer: its numbers by hand, what may not leak, what must be refused, and the losses that are reported."""

from __future__ import annotations

import copy
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ALPackage.base import *  # noqa: F403 (as the README has it)
from ALPackage.base import AE, AL, ENC

from .one_layer import X, Y, dense_batches, dense_layer, equal_weights, scalar_layer, weight, weights

# --- the numbers, by hand -------------------------------------------------------------------------------------------


def test_both_losses_by_hand() -> None:
    # b(f(x)) = 6, 12 against g(y) = 1/2, 3/2; h(g(y)) = 2, 6 against y = 1, 3
    layer = scalar_layer()
    hidden, code = layer(X, Y)
    associated, autoencoder = layer.loss()
    assert hidden.tolist() == [[2.0], [4.0]]
    assert code.tolist() == [[0.5], [1.5]]
    assert associated.item() == (5.5**2 + 10.5**2) / 2
    assert autoencoder.item() == (1.0**2 + 3.0**2) / 2
    assert associated.shape == autoencoder.shape == ()


def test_gradients_by_hand_stop_at_the_code_of_the_associated_loss() -> None:
    layer = scalar_layer()
    layer(X, Y)
    layer.backward()
    grads = [m.weight.grad.item() for m in (layer.enc.f, layer.enc.b, layer.ae.g, layer.ae.h)]  # type: ignore[union-attr,operator]
    # g would get 40 - 37 if the associated loss reached it.
    assert grads == [79.5, 53.0, 40.0, 5.0]


def test_one_sgd_step_by_hand() -> None:
    layer = scalar_layer(lr=0.01, optimizer=torch.optim.SGD)
    layer(X, Y)
    layer.backward_and_update()
    assert weights(layer) == pytest.approx([1.205, 2.47, 0.1, 3.95], abs=1e-6)


def test_one_adam_step_by_hand_moves_every_weight_by_the_learning_rate() -> None:
    layer = scalar_layer(lr={"enc": 0.1, "ae": 0.02})
    layer(X, Y)
    layer.backward()
    layer.update()
    # The first step of Adam is lr * grad / (|grad| + 1e-8); all four gradients are positive.
    assert weights(layer) == pytest.approx([1.9, 2.9, 0.48, 3.98], abs=1e-6)


def test_two_adam_steps_equal_adam_written_out() -> None:
    layer, twin = scalar_layer(lr=0.05), [2.0, 3.0, 0.5, 4.0]
    first, second = [0.0] * 4, [0.0] * 4
    for step in (1, 2):
        f, b, g, h = twin
        grads = [0.0] * 4
        for x, y in ((1.0, 1.0), (2.0, 3.0)):
            away, off = b * f * x - g * y, h * g * y - y
            for i, part in enumerate((away * b * x, away * f * x, off * h * y, off * g * y)):
                grads[i] += part  # 2 / B = 1
        for i, grad in enumerate(grads):
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            twin[i] -= 0.05 * (first[i] / (1 - 0.9**step)) / ((second[i] / (1 - 0.999**step)) ** 0.5 + 1e-8)
        layer(X, Y)
        layer.backward_and_update()
    assert weights(layer) == pytest.approx(twin, abs=1e-5)


def test_the_defaults_are_mse_and_adam() -> None:
    layer = AL(ENC(weight(1.0), weight(1.0)), AE(weight(1.0), weight(1.0)))
    assert type(layer.optimizer) is torch.optim.Adam
    assert isinstance(layer.enc.cri, nn.MSELoss)
    assert isinstance(layer.ae.cri, nn.MSELoss)


def test_own_criteria_are_used_each_on_its_side() -> None:
    layer = AL(ENC(weight(2.0), weight(3.0), nn.L1Loss()), AE(weight(0.5), weight(4.0), cri=lambda a, b: (a - b).sum()))
    layer(X, Y)
    assert [loss.item() for loss in layer.loss()] == [8.0, 4.0]


# --- nothing leaks --------------------------------------------------------------------------------------------------


def test_outputs_are_detached_and_no_gradient_crosses_layers() -> None:
    first, second = dense_layer(), dense_layer(x=5, y=4)
    x = torch.randn(7, 6, requires_grad=True)
    y = torch.randn(7, 3, requires_grad=True)
    hidden, code = first(x, y)
    assert hidden.grad_fn is None
    assert code.grad_fn is None
    assert not hidden.requires_grad
    assert not code.requires_grad
    second(hidden, code)
    second.backward()
    assert all(p.grad is None for p in first.parameters())
    first.backward()
    assert x.grad is None
    assert y.grad is None
    assert all(p.grad is not None for p in first.parameters())


def test_each_loss_reaches_only_its_own_side() -> None:
    class Zero(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a * 0.0).sum()

    for silent in ("enc", "ae"):
        layer = dense_layer()
        part = getattr(layer, silent)
        part.cri = Zero()
        layer(*dense_batches(1)[0])
        layer.backward()
        assert all(p.grad is None or not p.grad.any() for p in part.parameters())
        other = layer.ae if silent == "enc" else layer.enc
        assert all(p.grad is not None and p.grad.any() for p in other.parameters())


def test_update_clears_the_gradients() -> None:
    layer = dense_layer()
    layer(*dense_batches(1)[0])
    layer.backward_and_update()
    assert all(p.grad is None for p in layer.parameters())


def test_reported_losses_hold_no_graph() -> None:
    layer = dense_layer()
    layer(*dense_batches(1)[0])
    assert not any(loss.requires_grad for loss in layer.loss())


# --- learning rates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lr",
    [
        1,
        0.5,
        np.float32(0.25),
        np.int64(2),
        np.array(0.5),
        torch.tensor(0.5),
        torch.tensor(1),
        Fraction(1, 4),
        Decimal("0.5"),
    ],
    ids=repr,
)
def test_a_learning_rate_is_a_number_of_any_kind(lr: Any) -> None:
    """Guards a bug: an int learning rate failed."""
    layer = AL(ENC(weight(1.0), weight(1.0)), AE(weight(1.0), weight(1.0)), lr)  # third, positional
    assert [group["lr"] for group in layer.optimizer.param_groups] == [float(lr)] * 2
    layer(X, Y)
    layer.backward_and_update()
    layer.set_lr({"enc": lr, "ae": 0.125})
    assert [group["lr"] for group in layer.optimizer.param_groups] == [float(lr), 0.125]


def test_each_side_has_its_own_rate() -> None:
    layer = scalar_layer(lr={"ae": 0, "enc": 0.01}, optimizer=torch.optim.SGD)
    layer(X, Y)
    layer.backward_and_update()
    assert weights(layer) == pytest.approx([1.205, 2.47, 0.5, 4.0], abs=1e-6)


def test_set_lr_of_one_side_leaves_the_other() -> None:
    layer = scalar_layer(lr=0.5)
    layer.set_lr({"ae": 0.25})
    assert [group["lr"] for group in layer.optimizer.param_groups] == [0.5, 0.25]
    layer.set_lr({"enc": 1})
    assert [group["lr"] for group in layer.optimizer.param_groups] == [1.0, 0.25]
    layer.set_lr(0.125)
    assert [group["lr"] for group in layer.optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize(
    "lr",
    [
        -1e-9,
        float("nan"),
        float("inf"),
        torch.tensor(-1.0),
        {"enc": 0.1, "ae": -0.1},
        {"enc": 0.1, "dec": 0.1},
        {},
        "0.1",
    ],
    ids=repr,
)
def test_a_wrong_rate_is_refused_and_changes_nothing(lr: Any) -> None:
    with pytest.raises(ValueError, match="learning rate"):
        scalar_layer(lr=lr)
    layer = scalar_layer(lr=0.5)
    with pytest.raises(ValueError, match="learning rate"):
        layer.set_lr(lr)
    assert [group["lr"] for group in layer.optimizer.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize("side", ["enc", "ae"])
def test_a_layer_made_with_one_side_s_rate_only_is_refused_by_name(side: str) -> None:
    missing = {"enc": "ae", "ae": "enc"}[side]
    with pytest.raises(ValueError, match=f"learning rate.*{missing}"):
        scalar_layer(lr={side: 0.1})


# --- inference ------------------------------------------------------------------------------------------------------


def test_inference_paths_are_f_b_and_h() -> None:
    layer = dense_layer()
    x, hidden, code = torch.randn(2, 6), torch.randn(2, 5), torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(layer.inference(x, "f"), layer.enc.f(x))
        assert torch.equal(layer.inference(hidden, "b"), layer.enc.b(hidden))
        assert torch.equal(layer.inference(code, "h"), layer.ae.h(code))
    assert layer.inference(x, "f").requires_grad is False


@pytest.mark.parametrize("path", ["g", "", "F", "fb", "text", None])
def test_another_path_is_a_value_error_that_names_the_right_ones(path: Any) -> None:
    """Guards a bug: `assert "text"` let every path through."""
    with pytest.raises(ValueError, match="'f', 'b' or 'h'"):
        dense_layer().inference(torch.randn(2, 6), path)


def test_inference_does_not_disturb_the_batch_in_flight() -> None:
    layer = dense_layer()
    twin = copy.deepcopy(layer)
    (x, y), (other, _) = dense_batches(2)
    layer(x, y)
    layer.inference(other, "f")
    layer.backward_and_update()
    twin(x, y)
    twin.backward_and_update()
    assert equal_weights(layer, twin)


def test_inputs_are_moved_to_the_layers_device() -> None:
    # "meta" is a device that every machine has: tensors there have shapes and no data.
    layer = dense_layer().to("meta")
    x, y = layer({"x": torch.randn(7, 6)}["x"], torch.randn(7, 3))
    assert x.device.type == y.device.type == layer.device.type == "meta"
    for path, width in (("f", 6), ("b", 5), ("h", 4)):
        assert layer.inference(torch.randn(2, width), path).device.type == "meta"


# --- the losses that are reported -----------------------------------------------------------------------------------


def test_losses_are_nan_before_any_batch() -> None:
    pair = dense_layer().loss()
    assert len(pair) == 2
    assert all(loss.shape == () and loss.isnan() for loss in pair)


def test_losses_are_those_of_the_last_batch() -> None:
    layer = scalar_layer(lr=0.0)
    for x in (X, 2 * X):
        layer(x, Y)
        layer.backward_and_update()
    assert layer.loss()[0].item() == (11.5**2 + 22.5**2) / 2


def test_an_optimizer_without_named_groups_takes_every_rate() -> None:
    """Guards a bug: rates for the two sides were refused, as no group had these names."""
    layer = dense_layer()
    layer.optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.set_lr({"enc": 1e-3, "ae": 3e-3})
    assert [group["lr"] for group in layer.optimizer.param_groups] == [3e-3]
    with pytest.raises(ValueError, match='expected "enc" and "ae"'):
        layer.set_lr({"other": 1e-3})


def test_the_optimizer_of_a_side_needs_a_group_of_its_name() -> None:
    """Guards a bug: without such a group it stepped nothing, in silence."""
    layer = dense_layer()
    layer.optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for side in (layer.enc_opt, layer.ae_opt):
        with pytest.raises(ValueError, match="no parameter group named"):
            side.step()


@pytest.mark.parametrize(("one", "other"), ["bg", "fh", "fg", "bh"])
@pytest.mark.parametrize("kind", ["module", "memory"])
def test_one_weight_on_both_sides_is_refused_and_both_are_named(one: str, other: str, kind: str) -> None:
    maps = {name: nn.Linear(4, 4) for name in "fbgh"}
    if kind == "module":
        maps[other] = maps[one]
    else:
        maps[other].weight = nn.Parameter(maps[one].weight.data)
    with pytest.raises(ValueError, match=rf"enc\.{one}\.weight and ae\.{other}\.weight are one weight") as caught:
        AL(ENC(maps["f"], maps["b"]), AE(maps["g"], maps["h"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ENC(nn.ReLU, nn.Linear(2, 2)), "ENC: f is the class ReLU"),  # type: ignore[arg-type]
        (lambda: AE(nn.Linear(2, 2), nn.Linear), "AE: h is the class Linear"),  # type: ignore[arg-type]
        (lambda: ENC(nn.ReLU(), nn.ReLU(), nn.MSELoss), "ENC: cri is the class MSELoss"),  # type: ignore[arg-type]
        (lambda: ENC(nn.ReLU(), nn.ReLU(), "mse"), "ENC: cri is of type str"),  # type: ignore[arg-type]
        (lambda: AL(dense_layer().ae, dense_layer().enc), "AL: got an object of type AE as enc"),  # type: ignore[arg-type]
        (lambda: AL(dense_layer().enc, None), "AL: got an object of type NoneType as ae"),  # type: ignore[arg-type]
        (lambda: dense_layer(optimizer="adam"), "AL: got an object of type str as optimizer.*torch.optim.AdamW"),
    ],
)
def test_what_is_given_in_the_place_of_something_else_is_named(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()
