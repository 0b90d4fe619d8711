"""The base class of every layer with local losses: what a subclass must give, and what it gets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import ALStack, LocalLayer, make_schedule


class Classifier(LocalLayer):
    """A layer with three losses, which hands its labels on."""

    loss_names = ("entropy", "size", "constant")

    def __init__(self, width_in: int = 4, width_out: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.f, self.head = nn.Linear(width_in, width_out), nn.Linear(width_out, classes)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def compute(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        hidden = self.hidden(x)
        entropy = F.cross_entropy(self.readout(hidden), labels)
        return hidden, labels, {"entropy": entropy, "size": hidden.square().mean(), "constant": torch.tensor(2.0)}

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.f(x))

    def readout(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)  # type: ignore[no-any-return]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])


def test_losses_have_names_in_order_and_are_nan_before_any_batch() -> None:
    layer = Classifier()
    assert list(layer.losses()) == ["entropy", "size", "constant"]
    assert all(loss.isnan() and loss.shape == () for loss in layer.losses().values())
    layer(*batch())
    losses = layer.losses()
    assert list(losses) == ["entropy", "size", "constant"]
    assert losses["constant"] == 2.0
    assert not any(loss.requires_grad for loss in losses.values())


def test_one_step_goes_down_the_sum_of_the_losses() -> None:
    layer, (x, labels) = Classifier(), batch()
    twin = copy.deepcopy(layer)
    layer(x, labels)
    layer.backward_and_update()
    _, _, losses = twin.compute(x, labels)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for found, parameter in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.detach(), parameter.detach() - 0.1 * parameter.grad)  # type: ignore[operator]


def test_what_it_hands_on_is_detached_and_the_labels_are_the_same() -> None:
    x, labels = batch()
    hidden, same = Classifier()(x, labels)
    assert hidden.grad_fn is None
    assert torch.equal(same, labels)


@pytest.mark.parametrize("schedule", ["sequential", "al-fm", "continuous"])
def test_a_stack_of_another_objective_trains_in_every_schedule_and_predicts(schedule: str) -> None:
    torch.manual_seed(1)
    stack = ALStack([Classifier(), Classifier()])
    twin = copy.deepcopy(stack)
    data = [batch() for _ in range(4)]
    with make_schedule(schedule, stack, threads=1) as made:
        reported = list(made.run(data))
    for x, y in data:
        twin(x, y)
        twin.backward_and_update()
    assert all(torch.equal(a, b) for a, b in zip(stack.parameters(), twin.parameters(), strict=True))
    assert reported[-1] == twin.losses()
    x = data[0][0]
    with torch.no_grad():
        first, second = stack
        assert torch.equal(stack.inference(x, 1), first.readout(first.hidden(x)))
        assert torch.equal(stack.inference(x), second.readout(second.hidden(first.hidden(x))))


@pytest.mark.parametrize(("call", "count"), [("compute", 2), ("hidden", 1), ("readout", 1)])
def test_what_a_subclass_leaves_out_is_named_when_it_is_needed(call: str, count: int) -> None:
    class Bare(LocalLayer):
        pass

    with pytest.raises(NotImplementedError, match=rf"Bare\.{call}: implement it"):
        getattr(Bare(), call)(*[torch.ones(1)] * count)
    assert Bare().decode("code") == "code"
    bare = Bare()
    assert bare.parts() == {"hidden": [bare], "readout": [], "decode": []}, "all of it counts"


def test_rates_without_named_groups_are_one_number() -> None:
    layer = Classifier()
    layer.set_lr(0.5)
    assert layer.optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="learning rates for"):
        layer.set_lr({"enc": 0.1})


def test_a_copy_keeps_its_worker_and_a_batch_can_be_dropped() -> None:
    layer: Any = Classifier()
    layer.assign(torch.device("cpu", 2))
    assert str(copy.deepcopy(layer).placement) == "cpu:2"
    layer(*batch())
    layer.discard()
    layer(*batch())
    layer.backward_and_update()


def test_losses_by_other_names_than_announced_are_refused() -> None:
    """Guards a bug: a loss that `loss_names` does not have was trained on and never reported."""

    class Silent(Classifier):
        def compute(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            x, labels, losses = super().compute(x, labels)
            return x, labels, {**losses, "extra": losses["size"]}

    with pytest.raises(
        RuntimeError, match=r"Silent\.compute: returned the losses .*extra; expected those of loss_names"
    ):
        Silent()(*batch())
