"""Epoch losses and accuracies by hand, under every schedule and precision."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from models import BPStack
from models.blocks import Block
from training.trainer import ALTrainer, BPTrainer, Trainer, mixed_precision

from ..ALPackage.hooked import ALL, hooked, nothing, workers

CPU = torch.device("cpu")


class Scripted(Trainer):
    """Predicts what it is told, `behind` batches behind its inputs, and notes in which state it is called."""

    def __init__(self, predictions: list[list[list[int]]], behind: int = 0) -> None:
        self.predictions, self.behind = predictions, behind
        self.states: list[tuple[bool, bool, bool]] = []
        self.training = False

    def _mode(self, training: bool) -> None:
        self.training = training

    def _note(self) -> None:
        self.states.append((self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))

    def _epoch(self, batches: Any, lr: Any, progress: Any) -> dict[str, Any]:
        self._note()
        return {"loss": float(len(list(batches)))}

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        self._note()
        held: deque[list[Tensor]] = deque()
        for _, depths in zip(inputs, self.predictions, strict=True):
            held.append([F.one_hot(torch.tensor(classes), 3).float() for classes in depths])
            if len(held) > self.behind:
                yield held.popleft()
        yield from held

    @property
    def devices(self) -> list[torch.device]:
        return [CPU]


LABELS = [[0, 1, 2], [1], [2, 2, 0, 1]]
PREDICTED = [[[0, 0, 0], [0, 1, 0]], [[0], [1]], [[2, 0, 0, 0], [2, 2, 0, 0]]]


@pytest.mark.parametrize("behind", [0, 2])
def test_accuracy_counts_samples_at_every_depth(behind: int) -> None:
    batches = [(torch.zeros(len(labels)), torch.tensor(labels)) for labels in LABELS]
    # Depth 1 has 1 + 0 + 2 of the 8 right, depth 2 has 2 + 1 + 3.
    assert Scripted(PREDICTED, behind).accuracies(batches) == [37.5, 75.0]


@pytest.mark.parametrize(("precision", "autocast"), [("fp32", False), ("bf16", True)])
def test_mode_gradients_and_precision_are_those_of_the_task(precision: str, autocast: bool) -> None:
    trainer = Scripted([[[0]]])
    trainer.precision = precision
    batches = [(torch.zeros(1), torch.tensor([0]))]
    trainer.accuracies(batches)
    trainer.train(batches, lambda step: 0.1, lambda losses: None)
    assert trainer.states == [(False, False, autocast), (True, True, autocast)]
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_the_time_is_that_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("training.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert Scripted([]).train([], lambda step: 0.1, lambda losses: None) == ({"loss": 0.0}, 2.5)


def test_mixed_precision_ends_with_its_block() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with mixed_precision([CPU, CPU], "fp32"):
        assert layer(x).dtype == torch.float32
    with pytest.raises(KeyError), mixed_precision([CPU, CPU], "bf16"):
        assert layer(x).dtype == torch.bfloat16
        assert layer.weight.dtype == torch.float32
        raise KeyError
    assert layer(x).dtype == torch.float32


def logistic(**options: Any) -> BPTrainer:
    """Return a trainer of two logits that start at 0 and know nothing but a weight of their own."""
    head = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(head.weight)
    return BPTrainer(BPStack([Block("flat", nn.Flatten(), nn.LazyLinear)], head), lr=9.0, weight_decay=0.0, **options)


def test_a_bp_epoch_by_hand() -> None:
    trainer, steps, shown = logistic(), [], []

    def lr(step: int) -> float:
        steps.append(step)
        return 0.1 if step < 2 else 0.0

    batches = [(torch.ones(2, 1), torch.tensor([0, 0]))] * 2
    losses, _ = trainer.train(batches, lr, lambda losses: shown.append(losses["loss"]))
    # Adam's first step is lr in the direction of the gradient, so the logits are then 0.1 and -0.1.
    by_hand = [math.log(2), math.log(1 + math.exp(-0.2))]
    assert [loss.item() for loss in shown] == pytest.approx(by_hand)
    assert losses == {"loss": pytest.approx(sum(by_hand) / 2)}
    assert trainer.accuracies(batches) == [100.0]
    weight = trainer.model.layers["head"].weight
    before = weight.detach().clone()
    trainer.train(batches, lr, lambda losses: None)
    assert steps == [0, 1, 2, 3]
    assert trainer.step == 4
    assert torch.equal(weight, before), "the learning rate was 0"
    assert weight.grad is None
    assert (trainer.layers, trainer.usage(), trainer.devices) == ([], [], [CPU, CPU])


def test_a_bp_epoch_without_batches_has_no_loss() -> None:
    assert math.isnan(logistic().train([], lambda step: 0.1, lambda losses: None)[0]["loss"])


def scalar(weight: float) -> nn.Linear:
    """Return the multiplication by `weight`."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, weight)
    return layer


def scaled() -> ALStack:
    """Return two layers of numbers: x goes on as 2x and x, y stays; b is 1 and 2, h is 3 and 2."""
    return ALStack(
        AL(ENC(scalar(f), scalar(b)), AE(scalar(1.0), scalar(h))) for f, b, h in ((2.0, 1.0, 3.0), (1.0, 2.0, 2.0))
    )


TWO = [(torch.tensor([[1.0]]), torch.tensor([[1.0]])), (torch.tensor([[2.0]]), torch.tensor([[2.0]]))]
MEANS = {
    "assoc_loss": [((2 - 1) ** 2 + (4 - 2) ** 2) / 2, ((4 - 1) ** 2 + (8 - 2) ** 2) / 2],
    "ae_loss": [((3 - 1) ** 2 + (6 - 2) ** 2) / 2, ((2 - 1) ** 2 + (4 - 2) ** 2) / 2],
}


@pytest.mark.parametrize("schedule", ALL)
def test_an_al_epoch_by_hand(schedule: str) -> None:
    steps: list[int] = []
    shown: list[tuple[float, float]] = []

    def lr(step: int) -> float:
        steps.append(step)
        return 0.0

    with ALTrainer(scaled(), schedule, threads=1) as trainer:
        note: Callable[[dict[str, Tensor]], None] = lambda last: shown.append((float(last["assoc"]), float(last["ae"])))
        assert [trainer.train(TWO, lr, note)[0] for _ in range(2)] == [MEANS, MEANS]
        assert trainer.layers == ["layer_1", "layer_2"]
        assert {usage.batches for usage in trainer.usage()} == {4}
        assert [name for usage in trainer.usage() for name in usage.layers] == trainer.layers
        assert trainer.devices == [CPU, CPU]
        assert trainer.train([], lr, note)[0] == {"assoc_loss": [], "ae_loss": []}
    assert shown == [(9.0, 1.0), (36.0, 4.0)] * 2  # the last layer's
    assert steps == [0, 1, 2, 3]
    assert trainer.step == 4
    assert not workers()


@pytest.mark.parametrize("schedule", ALL)
def test_progress_may_keep_what_it_is_shown(schedule: str) -> None:
    kept: list[Tensor] = []
    with ALTrainer(scaled(), schedule, threads=1) as trainer:
        trainer.train(TWO, lambda step: 0.0, lambda last: kept.append(last["assoc"]))
    assert [float(loss) for loss in kept] == [9.0, 36.0]


class Noted(nn.Linear):
    """Notes the type of what it returns."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.dtypes = {*getattr(self, "dtypes", set()), out.dtype}
        return out


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_layer_computes_in_the_precision_and_keeps_its_weights(
    schedule: str, precision: str, dtype: torch.dtype
) -> None:
    noted = [Noted(1, 1), Noted(1, 1)]
    stack = ALStack(AL(ENC(f, scalar(1.0)), AE(scalar(1.0), scalar(1.0))) for f in noted)
    with ALTrainer(stack, schedule, precision=precision, threads=1) as trainer:
        trainer.train(TWO, lambda step: 0.01, lambda last: None)
        trained = [f.dtypes for f in noted]
        for f in noted:
            f.dtypes = set()
        trainer.accuracies([(torch.ones(1, 1), torch.tensor([0]))])
    assert trained == [f.dtypes for f in noted] == [{dtype}, {dtype}]
    assert {parameter.dtype for parameter in stack.parameters()} == {torch.float32}


@pytest.mark.parametrize("schedule", ALL)
def test_al_accuracies_are_those_of_the_stack_at_every_depth(schedule: str) -> None:
    stack = hooked(nothing)
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 4, generator=draw), torch.arange(n) % 3) for n in (7, 7, 2)]
    with ALTrainer(stack, schedule, threads=1) as trainer:
        found = trainer.accuracies(batches)
    assert not stack.training
    depths = zip(*(stack.inference_by_depth(x) for x, _ in batches), strict=True)
    labels = torch.cat([labels for _, labels in batches])
    expected = [100.0 * (torch.cat(logits).argmax(-1) == labels).sum().item() / 16 for logits in depths]
    assert found == pytest.approx(expected)
    assert 0 < max(found) < 100
