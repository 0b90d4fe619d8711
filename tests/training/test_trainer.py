"""Epoch losses and accuracies by hand, under every schedule and precision."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from models import BPStack
from models.blocks import Block
from training.trainer import ALTrainer, BPTrainer, Trainer

from ..ALPackage.hooked import ALL, hooked, nothing, workers

CPU = torch.device("cpu")
PRECISIONS = [("fp32", torch.float32), ("bf16", torch.bfloat16)]


class Scripted(Trainer):
    """Predicts what it is told, `behind` batches behind its inputs, and notes in which state it is called."""

    devices = [CPU]  # noqa: RUF012 (as every trainer has it)

    def __init__(self, predictions: list[list[list[int]]], behind: int = 0) -> None:
        self.predictions, self.behind, self.training = predictions, behind, False
        self.states: list[tuple[bool, bool, torch.dtype]] = []

    def _mode(self, training: bool) -> None:
        self.training = training

    def _note(self) -> None:
        self.states.append((self.training, torch.is_grad_enabled(), (torch.ones(1, 1) @ torch.ones(1, 1)).dtype))

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


@pytest.mark.parametrize("behind", [0, 2])
def test_accuracy_counts_samples_at_every_depth(behind: int) -> None:
    predicted = [[[0, 0, 0], [0, 1, 0]], [[0], [1]], [[2, 0, 0, 0], [2, 2, 0, 0]]]
    batches = [(torch.zeros(len(labels)), torch.tensor(labels)) for labels in ([0, 1, 2], [1], [2, 2, 0, 1])]
    # Depth 1 has 1 + 0 + 2 of the 8 right, depth 2 has 2 + 1 + 3.
    assert Scripted(predicted, behind).accuracies(batches) == [37.5, 75.0]


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS)
def test_time_mode_gradients_and_precision_are_those_of_the_task(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("training.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    trainer = Scripted([[[0]]])
    trainer.precision = precision
    batches = [(torch.zeros(1), torch.tensor([0]))]
    trainer.accuracies(batches)
    assert trainer.train(batches, lambda step: 0.1, lambda losses: None) == ({"loss": 1.0}, 2.5)
    trainer._note()
    assert trainer.states == [(False, False, dtype), (True, True, dtype), (True, True, torch.float32)]


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS)
def test_a_bp_epoch_by_hand(precision: str, dtype: torch.dtype) -> None:
    head = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(head.weight)
    model = BPStack([Block("flat", nn.Flatten(), nn.LazyLinear)], head)
    trainer = BPTrainer(model, lr=9.0, weight_decay=0.0, precision=precision)
    steps: list[int] = []
    shown: list[Tensor] = []
    types: set[torch.dtype] = set()
    head.register_forward_hook(lambda module, inputs, out: types.add(out.dtype))

    def lr(step: int) -> float:
        steps.append(step)
        return 0.1 if step < 2 else 0.0

    batches = [(torch.ones(2, 1), torch.tensor([0, 0]))] * 2
    losses, _ = trainer.train(batches, lr, lambda losses: shown.append(losses["loss"]))
    # Adam's first step is lr in the direction of the gradient, so the logits are then 0.1 and -0.1.
    by_hand = [math.log(2), math.log(1 + math.exp(-0.2))]
    assert [loss.item() for loss in shown] == pytest.approx(by_hand, rel=1e-6 if precision == "fp32" else 1e-3)
    assert losses == {"loss": pytest.approx(sum(loss.item() for loss in shown) / 2)}
    assert trainer.accuracies(batches) == [100.0]
    before = head.weight.detach().clone()
    trainer.train(batches, lr, lambda losses: None)
    assert (steps, trainer.step) == ([0, 1, 2, 3], 4)
    assert torch.equal(head.weight, before), "the learning rate was 0"
    assert head.weight.grad is None
    assert (types, head.weight.dtype, shown[0].dtype) == ({dtype}, torch.float32, torch.float32)
    assert (trainer.layers, trainer.usage(), trainer.devices) == ([], [], [CPU, CPU])
    assert math.isnan(trainer.train([], lr, lambda losses: None)[0]["loss"])


def scaled() -> ALStack:
    """Return two layers of numbers: f doubles x and then leaves it, b is 1 and 2, g is 1, h is 3 and 2."""
    stack = ALStack(AL(*(half(*(nn.Linear(1, 1, bias=False) for _ in "12")) for half in (ENC, AE))) for _ in "12")
    for parameter, weight in zip(stack.parameters(), (2.0, 1.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0), strict=True):
        nn.init.constant_(parameter, weight)
    return stack


TWO = [(torch.tensor([[number]]), torch.tensor([[number]])) for number in (1.0, 2.0)]
MEANS = {
    "assoc_loss": [((2 - 1) ** 2 + (4 - 2) ** 2) / 2, ((4 - 1) ** 2 + (8 - 2) ** 2) / 2],
    "ae_loss": [((3 - 1) ** 2 + (6 - 2) ** 2) / 2, ((2 - 1) ** 2 + (4 - 2) ** 2) / 2],
}


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS)
def test_an_al_epoch_by_hand(schedule: str, precision: str, dtype: torch.dtype) -> None:
    steps: list[int] = []
    shown: list[tuple[float, float]] = []
    types: set[torch.dtype] = set()
    stack = scaled()
    for layer in stack:
        layer.enc.f.register_forward_hook(lambda module, inputs, out: types.add(out.dtype))

    def lr(step: int) -> float:
        steps.append(step)
        return 0.0

    def progress(last: dict[str, Tensor]) -> None:
        shown.append((float(last["assoc"]), float(last["ae"])))

    with ALTrainer(stack, schedule, precision=precision, threads=1) as trainer:
        assert [trainer.train(TWO, lr, progress)[0] for _ in range(2)] == [MEANS, MEANS]
        assert (trainer.layers, trainer.devices) == (["layer_1", "layer_2"], [CPU, CPU])
        assert {usage.batches for usage in trainer.usage()} == {4}
        assert [name for usage in trainer.usage() for name in usage.layers] == trainer.layers
        assert trainer.train([], lr, progress)[0] == {"assoc_loss": [], "ae_loss": []}
    assert shown == [(9.0, 1.0), (36.0, 4.0)] * 2  # the last layer's
    assert (steps, trainer.step) == ([0, 1, 2, 3], 4)
    assert types == {dtype}
    assert {parameter.dtype for parameter in stack.parameters()} == {torch.float32}
    assert not workers()


def test_progress_may_keep_what_it_is_shown() -> None:
    kept: list[Tensor] = []
    with ALTrainer(scaled(), "sequential", threads=1) as trainer:
        trainer.train(TWO, lambda step: 0.0, lambda last: kept.append(last["assoc"]))
    assert [float(loss) for loss in kept] == [9.0, 36.0]


@pytest.mark.parametrize("schedule", ALL)
def test_al_accuracies_are_those_of_the_stack_at_every_depth(schedule: str) -> None:
    stack, x, labels = hooked(nothing), torch.randn(16, 4), torch.arange(16) % 3
    with ALTrainer(stack, schedule, threads=1) as trainer:
        found = trainer.accuracies([(x[:9], labels[:9]), (x[9:], labels[9:])])
    assert not stack.training
    assert found == [100 * (logits.argmax(-1) == labels).sum().item() / 16 for logits in stack.inference_by_depth(x)]
    assert 0 < max(found) < 100
