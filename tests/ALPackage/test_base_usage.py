"""One AL layer as users build it: subclasses, the README's loop, nested inputs, copies and casts."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.base import *  # noqa: F403 (as the README has it)
from ALPackage.base import AE, AL, ENC

from .test_base import X, Y, dense_batches, dense_layer, equal_weights, scalar_layer, weight, weights


class Whole(AL):
    """Replaces `forward` and `backward` wholly and keeps its own losses, as users of the earlier code do."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        hidden, code = self.enc.f(x), self.ae.g(y)
        self.loss_b = F.l1_loss(self.enc.b(hidden), code.detach())
        self.loss_d = F.l1_loss(self.ae.h(code), y)
        return hidden.detach(), code.detach()

    def loss(self) -> tuple[Tensor, Tensor]:
        return self.loss_b.detach(), self.loss_d.detach()

    def backward(self) -> None:
        torch.autograd.backward((self.loss_b, self.loss_d))


class Clipped(AL):
    """Clips its own gradients: the part of a step that must be per layer."""

    def backward(self) -> None:
        super().backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)


class HalfENC(ENC):
    """Hands on half of what `f` returns."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        loss, hidden = super().forward(x, code)
        return loss, hidden / 2

    def loss(self, bridged: Tensor, code: Tensor) -> Tensor:
        return 10 * super().loss(bridged, code)


class ThirdAE(AE):
    """Weighs the auto-encoder loss by three."""

    def loss(self, decoded: Tensor, y: Tensor) -> Tensor:
        return 3 * super().loss(decoded, y)


def test_subclasses_of_enc_and_ae_are_used() -> None:
    """Guards a bug: a subclass's `loss()` crashed on a name-mangled attribute."""
    layer = AL(HalfENC(weight(2.0), weight(3.0)), ThirdAE(weight(0.5), weight(4.0)))
    hidden, _ = layer(X, Y)
    assert hidden.tolist() == [[1.0], [2.0]]
    assert [loss.item() for loss in layer.loss()] == [702.5, 15.0]
    layer.backward()
    assert layer.enc.f.weight.grad.item() == 795.0  # type: ignore[union-attr,operator]


def test_a_wholly_replaced_layer_reports_its_own_losses_and_trains() -> None:
    """Guards a bug: a subclass that kept its own losses could not be driven by the base class."""
    layer = dense_layer(kind=Whole)
    batch = dense_batches(1)[0]
    losses = []
    for _ in range(30):
        layer(*batch)
        layer.backward_and_update()
        losses.append(sum(loss.item() for loss in layer.loss()))
    assert losses[-1] < losses[0]
    layer.discard()
    layer(*batch)


@pytest.mark.parametrize("kind", [AL, Whole, Clipped])
def test_the_thread_per_layer_loop_of_the_readme(kind: type[AL]) -> None:
    def stack() -> list[AL]:
        torch.manual_seed(3)
        return [dense_layer(kind=kind), dense_layer(x=5, y=4, kind=kind), dense_layer(x=5, y=4, kind=kind)]

    batches = dense_batches(8)
    threaded, plain = stack(), stack()
    for x, y in batches:
        threads = []
        for layer in threaded:
            x, y = layer(x, y)
            thread = threading.Thread(target=layer.backward_and_update)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
    for x, y in batches:
        for layer in plain:
            x, y = layer(x, y)
            layer.backward()
            layer.update()
    assert all(equal_weights(one, other) for one, other in zip(threaded, plain, strict=True))
    assert [layer.loss() for layer in threaded] == [layer.loss() for layer in plain]


def test_a_new_thread_uses_the_threads_that_were_asked_for() -> None:
    """Guards a bug: on some processors the gradient of 10 x 32 weights was another one on a thread of its own."""

    def trained(on_a_thread: bool) -> AL:
        torch.manual_seed(3)
        layer = AL(ENC(nn.Linear(32, 10), b=nn.Linear(10, 10)), AE(g=nn.Linear(3, 10), h=nn.Linear(10, 3)), lr=1e-3)
        for x, y in zip(torch.randn(2, 64, 32), torch.randn(2, 64, 3), strict=True):
            layer(x, y)
            if on_a_thread:
                thread = threading.Thread(target=layer.backward_and_update)
                thread.start()
                thread.join()
            else:
                layer.backward_and_update()
        return layer

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert equal_weights(trained(on_a_thread=True), trained(on_a_thread=False))
    finally:
        torch.set_num_threads(before)


# --- any structure, any shape ---------------------------------------------------------------------------------------


class Route(nn.Module):
    """A module made of a function, with a linear map to train."""

    def __init__(self, route: Callable[[nn.Linear, Any], Any], d_in: int, d_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out)
        self.route = route

    def forward(self, x: Any) -> Any:
        return self.route(self.linear, x)


def test_x_and_y_may_be_nested_structures() -> None:
    enc = ENC(
        Route(lambda m, x: {"out": [m(x["in"]), x["mask"]], "n": x["n"], "none": None}, 4, 3),
        Route(lambda m, x: m(x["out"][0] * x["out"][1]), 3, 2),
        lambda bridged, code: F.mse_loss(bridged, code[0][code[1]]),
    )
    ae = AE(
        Route(lambda m, y: (m(y[0]), y[1]), 5, 2),
        Route(lambda m, y: (m(y[0]), y[1]), 2, 5),
        lambda decoded, y: F.mse_loss(decoded[0], y[0]),
    )
    layer = AL(enc, ae)
    table, labels = torch.eye(5), torch.tensor([0, 4, 2])
    x = OrderedDict({"in": torch.randn(3, 4, requires_grad=True), "mask": torch.ones(3, 1), "n": 7})
    hidden, (codes, same) = layer(x, (table, labels))
    assert set(hidden) == {"out", "n", "none"}
    assert hidden["n"] == 7
    assert hidden["none"] is None
    assert not hidden["out"][0].requires_grad
    assert codes.shape == (5, 2)
    assert not codes.requires_grad
    assert torch.equal(same, labels)
    layer.backward_and_update()
    assert layer.inference(hidden, "b").shape == (3, 2)


def test_the_first_dimension_need_not_be_the_batch() -> None:
    class SequenceFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            out: tuple[Tensor, Tensor] = self.rnn(x)
            return out

    enc = ENC(SequenceFirst(), Route(lambda m, x: m(x[1][0]), 3, 2))  # (T, B, D) -> ((T, B, H), (1, B, H))
    layer = AL(enc, AE(nn.Linear(5, 2), nn.Linear(2, 5)))
    (states, last), code = layer(torch.randn(9, 6, 4), torch.randn(6, 5))
    assert states.shape == (9, 6, 3)
    assert last.shape == (1, 6, 3)
    assert code.shape == (6, 2)
    layer.backward_and_update()


# --- copies, casts, and what cannot be trained ----------------------------------------------------------------------


def test_optimizer_state_follows_a_cast() -> None:
    layer = dense_layer()
    batch = dense_batches(1)[0]
    layer(*batch)
    layer.backward_and_update()
    nn.ModuleList([layer]).to(torch.float64)  # as a part of a larger model
    moments = [layer.optimizer.state[p]["exp_avg"] for p in layer.parameters()]
    assert all(moment.dtype == torch.float64 and moment.any() for moment in moments)
    layer(*(part.double() for part in batch))
    layer.backward_and_update()
    assert all(layer.optimizer.state[p]["step"] == 2 for p in layer.parameters())


def test_a_deep_copy_trains_on_its_own() -> None:
    layer = dense_layer(lr=0.1)
    first, second = dense_batches(2)
    layer(*first)
    layer.backward_and_update()
    twin = copy.deepcopy(layer)
    before = copy.deepcopy(layer)
    twin(*second)
    twin.backward_and_update()
    assert equal_weights(layer, before)
    assert not equal_weights(layer, twin)
    layer(*second)
    layer.backward_and_update()
    assert equal_weights(layer, twin), "the copy lost the optimizer's moments"


def test_frozen_parameters_stay_and_a_layer_without_any_to_train_is_refused() -> None:
    frozen = weight(2.0).requires_grad_(False)
    layer = AL(ENC(frozen, weight(3.0)), AE(weight(0.5), weight(4.0)))
    layer(X, Y)
    layer.backward_and_update()
    assert frozen.weight.item() == 2.0
    assert weights(layer)[1] != 3.0
    with pytest.raises(ValueError, match="parameter"):
        AL(ENC(nn.Identity(), nn.Identity()), AE(nn.Identity(), nn.Identity()))


def test_only_one_side_may_have_weights() -> None:
    layer = AL(ENC(weight(2.0), nn.Identity()), AE(nn.Identity(), nn.Identity()), 0.1)
    layer(X, Y)
    layer.backward_and_update()
    assert layer.enc.f.weight.item() == pytest.approx(1.9)  # type: ignore[operator]


def test_the_optimizer_gets_two_named_groups() -> None:
    seen: list[Mapping[str, Any]] = []

    def optimizer(groups: list[Mapping[str, Any]]) -> torch.optim.Optimizer:
        seen.extend(groups)
        return torch.optim.SGD([dict(group) for group in groups], lr=1.0)

    layer = scalar_layer(lr={"enc": 0.1, "ae": 0.2}, optimizer=optimizer)
    assert [(group["name"], group["lr"]) for group in seen] == [("enc", 0.1), ("ae", 0.2)]
    assert list(layer.enc.parameters()) == seen[0]["params"]


@pytest.mark.parametrize("part", ["f", "g"])
def test_a_function_that_changes_its_input_in_place_is_refused(part: str) -> None:
    """The input belongs to the loader, or to the layer below, which still needs it for its backward pass."""
    hasty = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    parts = {"f": nn.Linear(3, 3), "g": nn.Linear(3, 3)} | {part: hasty}
    layer = AL(ENC(parts["f"], nn.Linear(3, 3)), AE(parts["g"], nn.Linear(3, 3)))
    with pytest.raises(RuntimeError, match="in place"):
        layer(torch.randn(4, 3), torch.randn(4, 3))
    tidy = AL(
        ENC(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), nn.Linear(3, 3)),
        AE(nn.Linear(3, 3), nn.Linear(3, 3)),
    )
    tidy(torch.randn(4, 3), torch.randn(4, 3))
    with torch.inference_mode():
        tidy.eval()(torch.randn(4, 3), torch.randn(4, 3))


def test_a_failed_backward_leaves_no_gradients_for_the_next_batch() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            if broken:
                raise ValueError("broken")
            return gradients[0]

    class Node(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Fails.apply(x)
            return out

    layer = AL(ENC(nn.Sequential(nn.Linear(3, 3), Node()), nn.Linear(3, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    broken = True
    layer(x, y)
    with pytest.raises(ValueError, match="broken"):
        layer.backward()
    assert all(parameter.grad is None for parameter in layer.parameters())
    broken = False
    layer(x, y)
    layer.backward_and_update()
