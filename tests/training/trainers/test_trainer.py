"""Epoch losses and accuracies by hand, under every schedule and precision."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ALPackage import AE, AL, ENC, ALStack, Snapshot
from models import BPModel, build_text
from models.blocks import Block
from training.errors import NumbersError
from training.trainers.al import ALTrainer
from training.trainers.bp import BPTrainer
from training.trainers.trainer import Trainer

from ...ALPackage.hooked import ALL, hooked, nothing, workers

CPU = torch.device("cpu")
PRECISIONS = [("fp32", torch.float32), ("bf16", torch.bfloat16)]


class Scripted(Trainer):
    """Predicts what it is told, `behind` batches behind its inputs, and notes in which state it is called."""

    devices = [CPU]  # noqa: RUF012 (as every trainer has it)

    def __init__(self, predictions: list[list[list[int]]], behind: int = 0) -> None:
        super().__init__({"": ("loss",)}, {})
        self.predictions, self.behind, self.training = predictions, behind, False
        self.states: list[tuple[bool, bool, torch.dtype]] = []

    def _mode(self, training: bool) -> None:
        self.training = training

    def _note(self) -> None:
        self.states.append((self.training, torch.is_grad_enabled(), (torch.ones(1, 1) @ torch.ones(1, 1)).dtype))

    def _steps(self, batches: Any, lr: Any) -> Iterator[list[dict[str, Tensor]]]:
        self._note()
        yield [{"loss": torch.tensor(float(len(list(batches))))}]

    def _load(self, layers: Any) -> None:
        raise AssertionError("not asked for")

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
    monkeypatch.setattr("training.trainers.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    trainer = Scripted([[[0]]])
    trainer.precision = precision
    batches = [(torch.zeros(1), torch.tensor([0]))]
    trainer.accuracies(batches)
    assert trainer.train_epoch(batches, lambda step: 0.1, lambda losses: None) == ({"": {"loss": 1.0}}, 2.5)
    trainer._note()
    assert trainer.states == [(False, False, dtype), (True, True, dtype), (True, True, torch.float32)]


def test_bp_smooths_its_labels() -> None:
    head = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.3], [-0.1]]))
    model = BPModel([Block("flat", nn.Flatten(), nn.LazyLinear)], head)
    trainer = BPTrainer(model, lr=0.0, weight_decay=0.0, label_smoothing=0.2)
    losses, _ = trainer.train_epoch([(torch.ones(2, 1), torch.tensor([0, 0]))], lambda step: 0.0, lambda losses: None)
    own, other = math.log(1 + math.exp(-0.4)), math.log(1 + math.exp(0.4))
    assert losses[""] == {
        "loss": pytest.approx(0.9 * own + 0.1 * other)
    }  # a half of the share stays with the own class


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS)
def test_a_bp_epoch_by_hand(precision: str, dtype: torch.dtype) -> None:
    head = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(head.weight)
    model = BPModel([Block("flat", nn.Flatten(), nn.LazyLinear)], head)
    trainer = BPTrainer(model, lr=9.0, weight_decay=0.0, precision=precision)
    steps: list[int] = []
    shown: list[Tensor] = []
    types: set[torch.dtype] = set()
    head.register_forward_hook(lambda module, inputs, out: types.add(out.dtype))

    def lr(step: int) -> float:
        steps.append(step)
        return 0.1 if step < 2 else 0.0

    batches = [(torch.ones(2, 1), torch.tensor([0, 0]))] * 2
    losses, _ = trainer.train_epoch(batches, lr, lambda losses: shown.append(losses["loss"]))
    # Adam's first step is lr in the direction of the gradient, so the logits are then 0.1 and -0.1.
    by_hand = [math.log(2), math.log(1 + math.exp(-0.2))]
    assert [loss.item() for loss in shown] == pytest.approx(by_hand, rel=1e-6 if precision == "fp32" else 1e-3)
    assert losses[""] == {"loss": pytest.approx(sum(loss.item() for loss in shown) / 2)}
    assert trainer.accuracies(batches) == [100.0]
    before = head.weight.detach().clone()
    trainer.train_epoch(batches, lr, lambda losses: None)
    assert (steps, trainer.step) == ([0, 1, 2, 3], 4)
    assert torch.equal(head.weight, before), "the learning rate was 0"
    assert head.weight.grad is None
    assert (types, head.weight.dtype, shown[0].dtype) == ({dtype}, torch.float32, torch.float32)
    assert (trainer.losses.names, trainer.usage(), trainer.devices) == ({"": ("loss",)}, [], [CPU, CPU])
    assert math.isnan(trainer.train_epoch([], lr, lambda losses: None)[0][""]["loss"])


def scaled() -> ALStack:
    """Return two layers of numbers: f doubles x and then leaves it, b is 1 and 2, g is 1, h is 3 and 2."""
    stack = ALStack(AL(*(half(*(nn.Linear(1, 1, bias=False) for _ in "12")) for half in (ENC, AE))) for _ in "12")
    for parameter, weight in zip(stack.parameters(), (2.0, 1.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0), strict=True):
        nn.init.constant_(parameter, weight)
    return stack


TWO = [(torch.tensor([[number]]), torch.tensor([[number]])) for number in (1.0, 2.0)]
MEANS = {
    "layer_1": {"assoc": ((2 - 1) ** 2 + (4 - 2) ** 2) / 2, "ae": ((3 - 1) ** 2 + (6 - 2) ** 2) / 2},
    "layer_2": {"assoc": ((4 - 1) ** 2 + (8 - 2) ** 2) / 2, "ae": ((2 - 1) ** 2 + (4 - 2) ** 2) / 2},
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
        assert [trainer.train_epoch(TWO, lr, progress)[0] for _ in range(2)] == [MEANS, MEANS]
        assert trainer.losses.names == dict.fromkeys(["layer_1", "layer_2"], ("assoc", "ae"))
        assert trainer.loss_titles == {"assoc": "associated loss", "ae": "auto-encoder loss"}
        assert trainer.devices == [CPU, CPU]
        batches = Counter[str]()
        for usage in trainer.usage():
            batches.update(usage.layer_batches)
        assert batches == {"layer_1": 4, "layer_2": 4}
        nothing_done = trainer.train_epoch([], lr, progress)[0]
        assert all(math.isnan(mean) for means in nothing_done.values() for mean in means.values())
    assert shown == [(9.0, 1.0), (36.0, 4.0)] * 2  # the last layer's
    assert (steps, trainer.step) == ([0, 1, 2, 3], 4)
    assert types == {dtype}
    assert {parameter.dtype for parameter in stack.parameters()} == {torch.float32}
    assert not workers()


def test_progress_may_keep_what_it_is_shown() -> None:
    kept: list[Tensor] = []
    with ALTrainer(scaled(), "sequential", threads=1) as trainer:
        trainer.train_epoch(TWO, lambda step: 0.0, lambda last: kept.append(last["assoc"]))
    assert [float(loss) for loss in kept] == [9.0, 36.0]


@pytest.mark.parametrize("schedule", ALL)
def test_al_accuracies_are_those_of_the_stack_at_every_depth(schedule: str) -> None:
    stack, x, labels = hooked(nothing), torch.randn(16, 4), torch.arange(16) % 3
    with ALTrainer(stack, schedule, threads=1) as trainer:
        found = trainer.accuracies([(x[:9], labels[:9]), (x[9:], labels[9:])])
    assert not stack.training
    assert found == [100 * (logits.argmax(-1) == labels).sum().item() / 16 for logits in stack.inference_by_depth(x)]
    assert 0 < max(found) < 100


def dropping(method: str, schedule: str = "sequential") -> Any:
    """Return a trainer of a model with dropout and batch normalization, always with the same initial weights."""
    torch.manual_seed(5)
    settings: dict[str, Any] = {"n_classes": 3, "association": "contrastive", "temperature": 0.2}
    settings |= {"lr": 1e-2, "weight_decay": 0.01, "vectors": torch.randn(20, 8), "x_hid": 6, "y_hid": 8, "n_heads": 2}
    model = build_text("transformer", method, **settings, dropout=0.3)
    if method == "bp":
        return BPTrainer(model, lr=1e-2, weight_decay=0.01, seed=4)
    return ALTrainer(model, schedule, threads=1, seed=4)


def documents(count: int) -> list[tuple[Any, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(count):
        rows = 4 - number % 2
        tokens = torch.randint(1, 20, (rows, 6), generator=draw, dtype=torch.int32)
        found.append(((tokens, torch.full((rows,), 6)), torch.randint(0, 3, (rows,), generator=draw)))
    return found


@pytest.mark.parametrize(
    ("method", "first", "second"),
    [("bp", "", "")] + [("al", first, second) for first in ALL for second in ALL],
)
def test_continuing_from_a_snapshot_is_as_if_nothing_had_happened(method: str, first: str, second: str) -> None:
    """State, losses and what follows; the second trainer may be under another schedule."""
    batches, states = documents(9), {}
    sums: dict[int, Any] = {}

    def with_snapshots(at: tuple[int, ...]) -> Iterator[Any]:
        def ready(snapshot: Snapshot, number: int) -> None:
            whole.check(snapshot)
            states[number], sums[number] = snapshot, whole.losses.state()

        for number, batch in enumerate(batches, start=1):
            yield batch
            if number in at:
                yield Snapshot(partial(ready, number=number))

    def lr(step: int) -> float:
        return 1e-2 / (1 + step)

    with dropping(method, first) as whole:
        whole.train_epoch(documents(3), lr, lambda losses: None)  # an epoch before
        expected, _ = whole.train_epoch(with_snapshots((1, 5, 9)), lr, lambda losses: None)
    assert [states[at].number for at in (1, 5, 9)] == [4, 8, 12]
    for at in (1, 5, 9):
        with dropping(method, second) as again:
            torch.rand(7)  # the process-wide generator has nothing to do with it
            again.load(states[at].number, sums[at], states[at].state)
            found, _ = again.train_epoch(batches[at:], lr, lambda losses: None)
            assert found == expected
            assert again.step == 12
            model = again.model if method == "bp" else again.stack
            other = whole.model if method == "bp" else whole.stack
            for (name, one), (_, two) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
                assert torch.equal(one, two), name
            optimizers = [(again, whole)] if method == "bp" else list(zip(again.stack, whole.stack, strict=True))
            for mine, theirs in optimizers:
                # Of the options only the rate moves, and that comes with every batch.
                assert_equal_nested(mine.optimizer.state_dict()["state"], theirs.optimizer.state_dict()["state"])


def assert_equal_nested(one: Any, two: Any) -> None:
    first, second = tree_flatten(one), tree_flatten(two)
    assert first[1] == second[1]
    for mine, theirs in zip(first[0], second[0], strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, Tensor) else mine == theirs


def test_a_snapshot_holds_copies() -> None:
    states: list[Snapshot] = []
    with dropping("bp") as trainer:
        trainer.train_epoch(
            [*documents(1), Snapshot(states.append), *documents(3)], lambda step: 0.1, lambda losses: None
        )
    for name, weight in trainer.model.layers["head"].named_parameters():
        assert not torch.equal(states[0].state["head"]["layer"][name], weight)


def test_bp_saves_moments_by_layer() -> None:
    with dropping("bp") as trainer:
        states: list[Snapshot] = []
        trainer.train_epoch([*documents(2), Snapshot(states.append)], lambda step: 0.1, lambda losses: None)
        assert list(states[0].state) == list(trainer.model.layers)
        for name, layer in trainer.model.layers.items():
            moments = states[0].state[name]["optimizer"]["state"]
            for number, parameter in enumerate(layer.parameters()):
                assert torch.equal(moments[number]["exp_avg"], trainer.optimizer.state[parameter]["exp_avg"])


def test_a_weight_that_is_not_finite_is_kept_out_of_a_checkpoint() -> None:
    """The loss of the batch may have been finite, and the step not."""
    words = r"^layer layer_2: a weight, a moment or a statistic is not a finite number after 1 steps, .* rate of 0.5;"

    def spoiled(snapshot: Snapshot) -> None:
        snapshot.state["layer_2"]["layer"]["enc.f.weight"].fill_(math.inf)
        with pytest.raises(NumbersError, match=words):
            trainer.check(snapshot)

    with ALTrainer(scaled(), "sequential", threads=1) as trainer:
        trainer.train_epoch([TWO[0], Snapshot(trainer.check), Snapshot(spoiled)], lambda step: 0.5, lambda losses: None)


def test_what_is_done_once_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a fault: CUDA graphs were captured in the first epoch of every turn, inside its training time."""
    ticks = iter([1.0, 2.0])
    monkeypatch.setattr("training.trainers.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    prepared: list[tuple[Any, bool, torch.dtype]] = []

    def prepare(batch: Any) -> None:
        prepared.append((batch, stack.training, torch.get_autocast_dtype("cpu")))

    stack = scaled()
    with ALTrainer(stack, "continuous", threads=1, precision="bf16") as trainer:
        monkeypatch.setattr(trainer.schedule, "prepare", prepare)
        stack.eval()
        trainer.prepare(TWO[0])
        assert prepared == [(TWO[0], True, torch.bfloat16)]
        assert next(ticks) == 1.0, "the clock has been read"
