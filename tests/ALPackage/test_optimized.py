"""Parameters that no optimizer holds are refused by name before training, and `reset_optimizer` mends it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from ALPackage import AL, ALStack, LocalLayer, make_schedule
from ALPackage.errors import LayerError
from ALPackage.optimized import optimizers, refuse_untrained

from .one_layer import dense_batches, dense_layer


def moved(layer: AL) -> dict[str, bool]:
    """Train a layer and return, by parameter, whether it has changed."""
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    with make_schedule("continuous", ALStack([layer]), threads=1) as schedule:
        list(schedule.run(dense_batches(3)))
    return {name: not torch.equal(parameter, before[name]) for name, parameter in layer.named_parameters()}


def assigned(layer: AL) -> None:
    layer.load_state_dict({name: value.clone() for name, value in layer.state_dict().items()}, assign=True)


def replaced(layer: AL) -> None:
    layer.enc.f = nn.Linear(6, 5)


def new_bias(layer: AL) -> None:
    layer.enc.b.bias = nn.Parameter(torch.zeros(4))


def weight_norm(layer: AL) -> None:
    parametrizations.weight_norm(layer.ae.g)


def unfrozen(layer: AL) -> None:
    layer.requires_grad_(True)


def frozen_first() -> AL:
    layer = dense_layer()
    frozen = layer.ae.requires_grad_(False), layer.enc
    return AL(frozen[1], frozen[0], optimizer=torch.optim.AdamW)


CASES: list[tuple[Callable[[AL], None], str]] = [
    (assigned, r"enc\.f\.0\.weight, enc\.f\.0\.bias, enc\.b\.weight and 5 more would never train.*8 parameters"),
    (replaced, r"enc\.f\.weight, enc\.f\.bias would never train: .*holds 2 parameters that the layer does not have"),
    (new_bias, r"enc\.b\.bias would never train: .*holds 1 parameter that the layer does not have instead"),
    (weight_norm, r"ae\.g\.parametrizations\.weight\.original0, .* would never train"),
    (
        unfrozen,
        r"ae\.g\.weight, ae\.g\.bias, ae\.h\.weight and 1 more would never train: in no optimizer of the layer;",
    ),
]


@pytest.mark.parametrize(("change", "words"), CASES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("call", ["run", "prepare", "a later run"])
def test_a_parameter_that_no_optimizer_holds_is_refused_and_the_reset_mends_it(
    change: Callable[[AL], None], words: str, call: str
) -> None:
    """Guards a bug: such weights kept their values for ever, without a word."""
    layer = frozen_first() if change is unfrozen else dense_layer(lr=0.125)
    with make_schedule("continuous", ALStack([layer]), threads=1) as schedule:
        if call == "a later run":
            list(schedule.run(dense_batches(2)))
        change(layer)
        with pytest.raises(ValueError, match=rf"layer 'layer_1': {words}.*reset_optimizer\(\)") as caught:
            schedule.prepare(dense_batches(1)[0]) if call == "prepare" else list(schedule.run(dense_batches(2)))
        assert "\n" not in str(caught.value)
        layer.reset_optimizer()
        assert len(list(schedule.run(dense_batches(2)))) == 2, "the schedule can still be used"
    assert all(moved(layer).values())


def test_a_parameter_that_is_gone_is_refused_too() -> None:
    layer = dense_layer()
    layer.enc.b.bias = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="the optimizer holds 1 parameter that the layer does not have; after"):
        moved(layer)
    layer.reset_optimizer()
    moved(layer)


def test_a_reset_keeps_class_settings_groups_and_schedulers() -> None:
    layer = dense_layer(lr={"enc": 0.5, "ae": 0.25}, optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.9))
    optimizer, scheduler = layer.optimizer, torch.optim.lr_scheduler.ExponentialLR(layer.optimizer, 0.5)
    moved(layer)
    assert optimizer.state
    layer.enc.f = nn.Linear(6, 5)
    layer.reset_optimizer()
    assert layer.optimizer is optimizer
    assert not optimizer.state
    enc, ae = optimizer.param_groups
    assert (enc["name"], enc["lr"], enc["momentum"], ae["lr"]) == ("enc", 0.5, 0.9, 0.25)
    assert [len(group["params"]) for group in (enc, ae)] == [4, 4]
    assert all(moved(layer).values())
    scheduler.step()
    assert enc["lr"] == 0.25


class TwoOptimizers(LocalLayer):
    """A layer with two optimizers of its own, one of them in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.optimizer = torch.optim.SGD([{"params": list(self.f.parameters()), "name": "f"}], 0.1)
        self.others = {"head": torch.optim.Adam([{"params": list(self.head.parameters()), "name": "head"}], 0.1)}

    def compute(self, x: Tensor, y: Tensor) -> Any:
        hidden = self.f(x)
        return hidden, y, {"loss": nn.functional.mse_loss(self.head(hidden), y)}

    def hidden(self, x: Tensor) -> Any:
        return self.f(x)

    def readout(self, hidden: Tensor) -> Any:
        return self.head(hidden)

    def update(self) -> None:
        super().update()
        self.others["head"].step()
        self.others["head"].zero_grad()


def test_every_optimizer_of_a_layer_counts() -> None:
    layer = TwoOptimizers()
    assert len(optimizers(layer)) == 2
    refuse_untrained("two", layer)
    layer.head = nn.Linear(6, 3)
    with pytest.raises(ValueError, match=r"head\.weight, head\.bias would never train"):
        refuse_untrained("two", layer)
    layer.reset_optimizer()
    refuse_untrained("two", layer)
    layer.extra = nn.Linear(2, 2)
    with pytest.raises(LayerError, match=r"cannot tell which of the 2 parameter groups extra\.weight belongs to"):
        layer.reset_optimizer()


def test_what_replaces_no_parameter_is_accepted() -> None:
    for change in (
        lambda layer: parametrizations.spectral_norm(layer.enc.b),
        lambda layer: prune.l1_unstructured(layer.enc.b, "weight", 0.5),  # type: ignore[no-untyped-call]
        lambda layer: layer.double().float(),
        lambda layer: layer.enc.requires_grad_(False),
    ):
        layer = dense_layer()
        change(layer)
        refuse_untrained("changed", layer)
    refuse_untrained("copied", copy.deepcopy(dense_layer()))


def test_a_lazy_module_needs_a_batch_first() -> None:
    layer = dense_layer()
    lazy = AL(type(layer.enc)(nn.LazyLinear(5), layer.enc.b), layer.ae)
    with (
        make_schedule("sequential", ALStack([lazy]), threads=1) as schedule,
        pytest.raises(ValueError, match=r"enc\.f\.weight has no shape yet.*with torch\.no_grad\(\): stack\(x, y\)"),
    ):
        list(schedule.run(dense_batches(2)))
    with torch.no_grad():
        lazy(*dense_batches(1)[0])
    assert all(moved(lazy).values())


@pytest.mark.parametrize("schedule", ["sequential", "al-fm", "continuous"])
def test_a_frozen_layer_hands_on_and_does_not_train(schedule: str) -> None:
    stack = ALStack([dense_layer(), dense_layer(5, 5, 4, 4)])
    stack[0].requires_grad_(False)
    before = [parameter.clone() for parameter in stack.parameters()]
    with make_schedule(schedule, stack, threads=1) as one:
        assert len(list(one.run(dense_batches(3)))) == 3
    changed = [not torch.equal(a, b) for a, b in zip(before, stack.parameters(), strict=True)]
    assert changed == [False] * 8 + [True] * 8


@pytest.mark.parametrize(("side", "title"), [("enc", "associated loss"), ("ae", "auto-encoder loss")])
def test_a_loss_without_a_graph_is_refused(side: str, title: str) -> None:
    layer = dense_layer()
    del getattr(layer, side).cri
    getattr(layer, side).cri = lambda one, other: nn.functional.mse_loss(one.detach(), other)
    with pytest.raises(LayerError, match=f"the {title} has no graph, so .* would never train"):
        layer(*dense_batches(1)[0])
    getattr(layer, side).requires_grad_(False)
    layer(*dense_batches(1)[0])
