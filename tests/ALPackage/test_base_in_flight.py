"""One AL layer and the one batch that it has in flight: what is refused, dropped, summed up and waited for."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage.base import AE, AL, ENC

from .one_layer import X, Y, dense_batches, dense_layer, equal_weights, scalar_layer


def test_backward_before_forward_is_an_error() -> None:
    layer = dense_layer()
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward()
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward_and_update()
    layer(*dense_batches(1)[0])
    layer.backward()
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward()


def test_a_second_forward_in_flight_is_an_error_and_the_first_batch_is_still_right() -> None:
    """Guards a bug: one batch in flight only, and the second silently replaced it."""
    layer = dense_layer()
    twin = copy.deepcopy(layer)
    one, two = dense_batches(2)
    layer(*one)
    with pytest.raises(RuntimeError, match="discard"):
        layer(*two)
    layer.backward_and_update()
    twin(*one)
    twin.backward_and_update()
    assert equal_weights(layer, twin)


def test_discard_drops_the_batch_and_its_gradients() -> None:
    layer = dense_layer()
    twin = copy.deepcopy(layer)
    one, two = dense_batches(2)
    layer(*one)
    layer.discard()
    with pytest.raises(RuntimeError, match="no batch in flight"):
        layer.backward()
    layer(*one)
    layer.backward()
    layer.discard()
    for each in (layer, twin):
        each(*two)
        each.backward_and_update()
    assert equal_weights(layer, twin)


def test_a_forward_without_gradients_leaves_nothing_pending() -> None:
    layer = dense_layer()
    batch = dense_batches(1)[0]
    with torch.no_grad():
        layer(*batch)
        layer(*batch)
    assert not torch.stack(layer.loss()).isnan().any()
    with pytest.raises(RuntimeError, match="no batch in flight"):
        layer.backward()
    layer(*batch)
    layer.backward_and_update()


def test_gradients_accumulate_over_batches_until_the_update() -> None:
    layer = scalar_layer()
    for _ in range(2):
        layer(X, Y)
        layer.backward()
    assert layer.enc.f.weight.grad.item() == 2 * 79.5  # type: ignore[union-attr,operator]


def test_a_forward_while_another_thread_updates_is_an_error_or_waits() -> None:
    """Two batches in flight must never be silently wrong: here the second would be computed with old weights."""
    entered, go = threading.Event(), threading.Event()

    class SlowSGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            entered.set()
            go.wait(5.0)
            return super().step(closure)

    layer = scalar_layer(lr=0.01, optimizer=SlowSGD)
    layer(X, Y)
    worker = threading.Thread(target=layer.backward_and_update)
    worker.start()
    assert entered.wait(5.0)
    threading.Timer(0.1, go.set).start()
    try:
        hidden, _ = layer(X, Y)
    except RuntimeError as error:
        assert "backward" in str(error)  # noqa: PT017 (either way out is right)
    else:
        assert hidden[0].item() == pytest.approx(1.205), "the forward used weights from before the update"
    finally:
        worker.join()


def test_a_first_update_that_is_cut_short_leaves_no_half_made_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: after Ctrl-C in the first step, Adam missed a moment at every later one."""
    one = AL(ENC(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
    x, y = torch.randn(5, 4), torch.randn(5, 3)
    made, calls = torch.zeros_like, iter(range(100))

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return made(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "zeros_like", interrupted)
        one(x, y)
        with pytest.raises(KeyboardInterrupt):
            one.backward_and_update()
    assert next(calls) > 3
    assert not one.optimizer.state
    one.discard()
    one(x, y)
    one.backward_and_update()
    assert {float(state["step"]) for state in one.optimizer.state.values()} == {1.0}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("value", [True, False])
def test_ctrl_c_as_an_update_is_announced_or_over_leaves_no_layer_locked(value: bool, after: bool) -> None:
    """CI met it once, from the signal of a loader's lost process: the layer said ever after that it was at work."""

    class Struck(AL):
        armed = False

        def __setattr__(self, name: str, given: Any) -> None:
            strikes = self.armed and name == "_updating" and given is value
            if strikes:
                type(self).armed = False
                if not after:
                    raise KeyboardInterrupt
            super().__setattr__(name, given)
            if strikes:
                raise KeyboardInterrupt

    one = Struck(ENC(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
    x, y = torch.randn(5, 4), torch.randn(5, 3)
    one(x, y)
    Struck.armed = True
    with pytest.raises(KeyboardInterrupt):
        one.backward_and_update()
    assert not Struck.armed
    one.discard()
    one(x, y)
    one.backward_and_update()
    one(x, y)
