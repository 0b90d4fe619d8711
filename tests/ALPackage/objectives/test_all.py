"""What holds of every objective: the same numbers under every schedule, over processes and through checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ALPackage import ALStack, Snapshot, make_schedule
from ALPackage.nan_guard import Guard
from ALPackage.preflight import check_layers
from ALPackage.testing import run_distributed
from models import build_text, build_vision, model_names

from ..hooked import SEED, State, assert_equal, snapshot
from ..test_convert import CASES, CLASSES, stack_of

NAMES = ["predsim", "deinfo", "infopro"]
VISION = model_names("vision")
CONCURRENT = ["al-fm", "continuous"]


def model_of(model: str, name: str) -> ALStack:
    """Return one of the shipped models at a tiny size."""
    torch.manual_seed(0)
    if model in VISION:
        sizes: dict[str, Any] = {"in_channels": 3, "image_size": 16, "width": 0.05, "enc_dim": 16, "ae_dim": 8}
        stack = build_vision(model, name, n_classes=CLASSES, lr=1e-3, **sizes)
    else:
        vectors = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
        stack = build_text(model, name, n_classes=CLASSES, vectors=vectors, lr=1e-3, x_hid=6, y_hid=8, n_heads=2)
    assert isinstance(stack, ALStack)
    return stack


def batches_of(model: str, count: int = 3) -> list[Any]:
    draw = torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (count, 4), generator=draw)
    if model in VISION:
        return [(torch.randn(4, 3, 16, 16, generator=draw), y) for y in labels]
    lengths = torch.tensor([6, 1, 4, 2])
    return [((torch.randint(1, 20, (4, 6), generator=draw), lengths), y) for y in labels]


def train(schedule: str, stack: ALStack, data: list[Any], **options: Any) -> State:
    with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
        assert len(list(one.run(data))) == len(data)
    return snapshot(stack)


@pytest.mark.parametrize("case", ["mlp", *(pytest.param(one, marks=pytest.mark.slow) for one in CASES if one != "mlp")])
@pytest.mark.parametrize("name", NAMES)
def test_all_schedules_give_the_same_numbers_and_it_learns(name: str, case: str) -> None:
    data = CASES[case][1]
    expected = train("sequential", stack_of(case, objective=name), data(6))
    for schedule in CONCURRENT:
        assert_equal(train(schedule, stack_of(case, objective=name), data(6)), expected)
    stack = stack_of(case, objective=name)
    with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
        for _ in range(5):
            list(one.run(data(12)))
    stack.eval()
    for depth in range(1, len(stack) + 1):
        right = sum(int((stack.inference(x, depth).argmax(1) == y).sum()) for x, y in data(12))
        assert right > 0.7 * 12 * 16, "far better than one in three"
    x, _ = data(1)[0]
    with torch.no_grad():
        assert torch.equal(stack.export().eval()(x), stack.inference(x))


@pytest.mark.parametrize("model", ["vgg", "lstm"])
@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_a_state_as_if_nothing_had_happened(name: str, model: str) -> None:
    data = batches_of(model, 5)
    taken = Snapshot()
    stack = model_of(model, name)
    with make_schedule("continuous", stack, threads=1, seed=SEED) as one:
        list(one.run([*data[:3], taken, *data[3:]]))
    other = model_of(model, name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    for layer_name, layer in other.items():
        layer.load_state_dict(taken.state[layer_name]["layer"])
        layer.optimizer.load_state_dict(taken.state[layer_name]["optimizer"])
    with make_schedule("sequential", other, threads=1, seed=SEED) as one:
        list(one.run(data[3:], first=3))
    assert_equal(snapshot(other), snapshot(stack))


@pytest.mark.parametrize("model", ["vgg", "lstm"])
@pytest.mark.parametrize("name", NAMES)
def test_training_and_inference_agree_and_losses_have_full_precision_under_autocast(name: str, model: str) -> None:
    stack = model_of(model, name)
    [batch] = batches_of(model, 1)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16)

    assert check_layers(stack, batch, concurrent=True, seed=SEED, context=autocast) is None
    with autocast():
        stack(*batch)
    assert {loss.dtype for losses in stack.losses() for loss in losses.values()} == {torch.float32}
    stack.backward_and_update()
    assert all(parameter.isfinite().all() for parameter in stack.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_not_finite_changes_nothing(name: str) -> None:
    stack = model_of("vgg", name)
    for layer in stack:
        layer.guard = Guard()
    before = snapshot(stack)
    [(x, y)] = batches_of("vgg", 1)
    train("sequential", stack, [(torch.full_like(x, float("nan")), y)])
    assert_equal(snapshot(stack), before)


def _over_ranks(names: list[str]) -> list[State | None]:
    return [_trained(name) for name in names]


def _trained(name: str) -> State | None:
    stack = model_of("lstm", name)
    with make_schedule("distributed", stack, threads=1, seed=SEED) as one:
        if not one.leads:  # type: ignore[attr-defined]
            one.serve()  # type: ignore[attr-defined]
            return None
        list(one.run(batches_of("lstm", 6)))
        stack.eval()
        predicted = list(one.predict([x for x, _ in batches_of("lstm", 2)]))
    return {
        f"{number} {depth}": logits
        for number, by_depth in enumerate(predicted)
        for depth, logits in enumerate(by_depth)
    }


@pytest.mark.slow
def test_over_processes_the_numbers_are_those_of_one() -> None:
    found = run_distributed(_over_ranks, 2, NAMES)[0]
    for name, state in zip(NAMES, found, strict=True):
        stack = model_of("lstm", name)
        train("sequential", stack, batches_of("lstm", 6))
        stack.eval()
        expected: dict[str, Tensor] = {}
        for number, (x, _) in enumerate(batches_of("lstm", 2)):
            for depth, logits in enumerate(stack.inference_by_depth(x)):
                expected[f"{number} {depth}"] = logits
        assert len(expected) == 8
        assert_equal(state, expected)
