"""Layers with heads in stacks: snapshots, rates, guards, costs, processes, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import ALStack, Guard, LocalLayer, Snapshot, make_schedule
from ALPackage.errors import LayerError, UnfitLayersError
from ALPackage.objectives.by_name import make_objective
from ALPackage.objectives.codes import OneHot
from ALPackage.objectives.contrastive import ContrastiveLayer
from ALPackage.objectives.headed import Headed
from ALPackage.objectives.part import Part
from ALPackage.placement.cost import measure
from ALPackage.randomness import Dropout
from ALPackage.testing import run_distributed
from tests.ALPackage.hooked import CONCURRENT, SEED, assert_equal, snapshot

CLASSES = 3
OBJECTIVES = ["ce", "scl"]
MIXED = ["ce", "scl", "ce"]


def layers(objective: str, names: str = "abc") -> dict[str, LocalLayer]:
    parts = []
    for name in names:
        f = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), Dropout(0.1))
        parts.append(Part(name, f, lambda width: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, width))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_objective(objective, code_dim=5).layers(parts, CLASSES, 0.01, torch.optim.Adam)


def stack_of(*objectives: str) -> ALStack:
    """Return a stack with layers of the given objectives in order; of one, three layers."""
    torch.manual_seed(0)
    if len(objectives) == 1:
        return ALStack(layers(objectives[0]))
    return ALStack({name: layers(one, name)[name] for name, one in zip("abc", objectives, strict=False)})


def data(n: int = 12) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (n, 16), generator=draw)
    return [(2 * torch.eye(CLASSES, 6)[one] + torch.randn(16, 6, generator=draw), one) for one in labels]


def run(stack: ALStack, schedule: str, batches: list[Any], **options: Any) -> list[Any]:
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        return list(one.run(batches, **options))


@pytest.mark.parametrize("schedule", CONCURRENT)
@pytest.mark.parametrize("objectives", [["ce"], ["scl"], MIXED], ids="-".join)
def test_schedules_snapshots_and_rates_change_no_bit(objectives: list[str], schedule: str) -> None:
    def rate(step: int) -> float:
        return 0.01 / (1 + step)

    whole, halves = stack_of(*objectives), stack_of(*objectives)
    expected = run(whole, "sequential", data(), lr=rate)
    moment = Snapshot()
    found = run(halves, schedule, [*data()[:5], moment, *data()[5:]], lr=rate)
    assert_equal(snapshot(halves), snapshot(whole))
    resumed = stack_of(*objectives)
    for name, layer in resumed.items():
        layer.load_state_dict(moment.state[name]["layer"])
        layer.optimizer.load_state_dict(moment.state[name]["optimizer"])
    assert_same(run(resumed, schedule, data()[5:], lr=rate, first=5), found[5:])
    assert_equal(snapshot(resumed), snapshot(whole))
    assert [layer.optimizer.param_groups[0]["lr"] for layer in resumed] == [rate(11)] * 3
    assert [[list(losses) for losses in one] for one in found] == [[list(one.loss_names) for one in whole]] * 12
    assert_same(found, expected)


def _over_ranks() -> list[Any] | None:
    results: list[Any] = []
    for objectives in (["ce"], ["scl"], MIXED):
        stack = stack_of(*objectives)
        with make_schedule("distributed", stack, threads=1, seed=SEED) as one:
            if not one.leads:  # type: ignore[attr-defined]
                one.serve()  # type: ignore[attr-defined]
                continue
            losses = list(one.run(data(6)))
            stack.eval()
            results.append((losses, list(one.predict([x for x, _ in data(2)]))))
    return results


@pytest.mark.slow
def test_over_processes_the_numbers_are_those_of_one() -> None:
    found = run_distributed(_over_ranks, 2)[0]
    for objectives, (losses, predictions) in zip((["ce"], ["scl"], MIXED), found, strict=True):
        stack = stack_of(*objectives)
        with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
            assert_same(losses, list(one.run(data(6))))
            stack.eval()
            assert_same(predictions, list(one.predict([x for x, _ in data(2)])))


def assert_same(found: Any, expected: Any) -> None:
    one, other = torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected)
    assert len(one) == len(other) > 0
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_guard_keeps_a_batch_that_is_not_finite_from_changing_anything(objective: str) -> None:
    stack = stack_of(objective)
    run(stack, "sequential", data(2))
    for layer in stack:
        layer.guard = Guard()
    before = snapshot(stack)
    [losses] = run(stack, "continuous", [(torch.full((16, 6), float("nan")), data(1)[0][1])])
    assert all(not loss.isfinite() for one in losses for loss in one.values())
    assert_equal(snapshot(stack), before)
    run(stack, "continuous", data(1), first=1)
    assert not torch.equal(snapshot(stack)["parameter layers.a.f.0.weight"], before["parameter layers.a.f.0.weight"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_costs_are_measured_and_every_depth_predicts(objective: str) -> None:
    stack = stack_of(objective)
    before = snapshot(stack)
    costs = measure(stack, data(1)[0], threads=1, repeats=2, budget=0.1)
    assert [cost.name for cost in costs] == stack.names
    assert all(cost.total > 0 and cost.bytes > 0 for cost in costs)
    assert_equal(snapshot(stack), before)
    stack.eval()
    x = data(1)[0][0]
    by_depth = stack.inference_by_depth(x)
    assert [one.shape for one in by_depth] == [(16, CLASSES)] * 3
    assert all(torch.equal(one, stack.inference(x, depth)) for depth, one in enumerate(by_depth, start=1))


@pytest.mark.parametrize("first", OBJECTIVES)
def test_layers_whose_targets_do_not_fit_are_refused_before_training(first: str) -> None:
    table = "a table of class codes with the labels"
    with pytest.raises(UnfitLayersError, match=f"layer 'a' hands on labels, but layer 'b' takes {table}; put layers"):
        stack_of(first, "al")
    with pytest.raises(UnfitLayersError, match=f"layer 'a' hands on {table}, but layer 'b' takes labels"):
        stack_of("al", first)
    with pytest.raises(UnfitLayersError, match=f"the stack's target hands on {table}, but layer 'a' takes labels"):
        ALStack(layers(first), target=OneHot(CLASSES))
    assert len(ALStack(layers("al"), target=OneHot(CLASSES))) == 3


def test_a_layer_is_not_added_behind_another_kind_of_target() -> None:
    stack = stack_of("ce")
    with pytest.raises(UnfitLayersError, match="layer 'c' hands on labels, but layer 'top' takes a table"):
        stack.append(layers("al")["b"], "top")
    assert stack.names == [*"abc"]


def test_a_layer_that_does_not_say_its_target_fits_everywhere() -> None:
    class Silent(Headed):
        takes = hands_on = None
        loss_names = ("loss",)

        def local_losses(self, x: Any, hidden: Any, labels: Any) -> dict[str, Tensor]:
            return {"loss": self.heads["classifier"](hidden).square().mean()}

    silent = Silent(nn.Linear(6, 6), {"classifier": nn.Linear(6, 3)}, 0.1, torch.optim.SGD)
    stack = ALStack({"s": silent, **layers("al", "b")}, target=OneHot(CLASSES))
    assert len(run(stack, "continuous", data(2))) == 2


class Cut(nn.Linear):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Rectified(nn.Linear):
    """Changes its input where no version counter shows it."""

    def forward(self, x: Tensor) -> Tensor:
        x.data.relu_()
        return super().forward(x)


def suspect(f: nn.Module | None = None, projector: nn.Module | None = None, classifier: nn.Module | None = None) -> Any:
    made: list[Callable[[], nn.Module]] = [lambda: nn.Linear(6, 6), lambda: nn.Linear(6, 4), lambda: nn.Linear(6, 3)]
    modules = [one or make() for one, make in zip((f, projector, classifier), made, strict=True)]
    return ALStack({"suspect": ContrastiveLayer(*modules)})  # type: ignore[arg-type]


def test_a_head_that_no_loss_reaches_is_warned_of() -> None:
    for stack, name in ((suspect(classifier=Cut(6, 3)), "classifier"), (suspect(f=Cut(6, 6)), "f")):
        with pytest.warns(UserWarning, match=f"no loss has a gradient to {name} of 'suspect'"):
            run(stack, "continuous", data(2))


@pytest.mark.parametrize("schedule", ["sequential", "continuous"])
def test_a_head_that_changes_its_input_is_refused(schedule: str) -> None:
    for head in ("projector", "classifier"):
        stack = suspect(**{head: Rectified(6, 4 if head == "projector" else 3)})
        with pytest.raises(UnfitLayersError, match=f"'suspect': the head {head} changes the layer's output in place"):
            run(stack, schedule, data(1))
    in_sight = suspect(projector=nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4)))
    with pytest.raises(LayerError, match="a head changes in place what f"):
        in_sight(*data(1)[0])
