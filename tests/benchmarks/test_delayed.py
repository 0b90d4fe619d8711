"""Asynchronous BP with a delay of one step, over processes, beside a loop that keeps all versions of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.testing import run_distributed
from benchmarks.pipeline.delayed import DelayedStage, TwoVersions

CUTS = {2: [1, 2], 3: [1, 1, 1]}
MICRO, BATCHES, LR = 3, 5, 0.05

Batch = tuple[Tensor, Tensor]


def network() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 4)]


def batches() -> list[Batch]:
    """Return batches, of which the last one is smaller."""
    made = torch.Generator().manual_seed(1)
    rows = [9] * (BATCHES - 1) + [7]
    return [(torch.randn(n, 6, generator=made), torch.randint(4, (n,), generator=made)) for n in rows]


def adam(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=LR)


def train(cut: list[int]) -> tuple[list[float], dict[str, Tensor], int, Tensor | None]:
    """Train this process's stage in two runs, and return its losses, its weights, what it sent, and predictions."""
    stage = DelayedStage(network(), cut, MICRO, adam)
    losses = [float(loss) for part in (batches()[:3], batches()[3:]) for loss in stage.run(part)]
    out = list(stage.predict(batches()[:1]))
    start = sum(cut[: dist.get_rank()])
    weights = {  # by the layer's number in the whole network
        f"{start + int(name.split('.')[1])}.{name.split('.', 2)[2]}": one.detach()
        for name, one in stage.weights.newest.items()
    }
    return losses, weights, sum(stage.sent.values()), out[0] if out else None


def with_all_versions() -> tuple[list[float], nn.Module]:
    """Write the rule down: W(t+1) is W(t) and a step with the gradient of batch t at W(t-1)."""
    newest = nn.Sequential(*network())
    optimizer = adam(list(newest.parameters()))
    versions, losses = [copy.deepcopy(newest), copy.deepcopy(newest)], []  # W(-1) is W(0)
    for number, (x, labels) in enumerate(batches()):
        used = versions[number]
        loss = F.cross_entropy(used(x), labels)
        gradients = torch.autograd.grad(loss, list(used.parameters()))
        for weight, gradient in zip(newest.parameters(), gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        versions.append(copy.deepcopy(newest))
        losses.append(float(loss.detach()))
    return losses, newest


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_it_computes_what_its_rule_says(ranks: int) -> None:
    expected_losses, expected = with_all_versions()
    found = run_distributed(train, ranks, CUTS[ranks])
    assert found[-1][0] == pytest.approx(expected_losses, rel=1e-5)
    weights = {name: one for _, part, _, _ in found for name, one in part.items()}
    assert set(weights) == set(dict(expected.named_parameters()))
    for name, one in expected.named_parameters():
        torch.testing.assert_close(weights[name], one.detach(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(found[-1][3], expected(batches()[0][0]), rtol=1e-4, atol=1e-5)
    # Every row goes on as 8 numbers, and as many come back.
    rows = sum(len(labels) for _, labels in batches())
    forward, back = rows * 8 * 4, rows * 8 * 4
    assert [size for *_, size, _ in found] == [forward, *[forward + back] * (ranks - 2), back]


def test_the_delay_makes_a_difference() -> None:
    """Guards the test above: the same batches without a delay end elsewhere."""
    model = nn.Sequential(*network())
    optimizer = adam(list(model.parameters()))
    for x, labels in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    delayed = with_all_versions()[1]
    assert any(
        (one - other).abs().max() > 1e-2 for one, other in zip(model.parameters(), delayed.parameters(), strict=True)
    )


def test_two_versions_take_turns() -> None:
    """With plain steps of 1 the weight is what is left of it after all gradients but those on their way."""
    part = nn.Linear(1, 1, bias=False)
    sgd: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = lambda own: torch.optim.SGD(own, lr=1.0)  # noqa: E731
    nn.init.constant_(part.weight, 10.0)
    weights = TwoVersions(part, sgd)
    seen = []
    for batch, gradient in enumerate([1.0, 2.0, 4.0]):
        used = weights.of(batch)["weight"]
        seen.append(used.item())
        used.grad = torch.full_like(used, gradient)
        weights.update()
        assert used.grad is None
    assert seen == [10.0, 10.0, 9.0]
    assert weights.newest["weight"].item() == 10.0 - 1.0 - 2.0 - 4.0
