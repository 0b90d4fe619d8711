"""What replicas of a layer average, what they leave alone, and which layers cannot have any."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, PlacementError
from ALPackage.errors import LayerError, UnfitLayersError
from ALPackage.nan_guard import Guard
from ALPackage.objectives.association import Association, Reconstruction
from ALPackage.objectives.classification import ClassifierAL
from ALPackage.randomness import Dropout
from ALPackage.ranks.averaging import GradientAveraging, ReplicaGroup, refuse_inseparable
from ALPackage.ranks.batch_norm import WholeBatchNorm, refuse_unknown, synchronize, undo
from ALPackage.rows import Share, count_rows, join_rows, take_rows
from ALPackage.schedules.over_ranks import _enough_workers
from tests.ALPackage.schedules.test_schedules import build


class Known(ReplicaGroup):
    """A group whose other replica has sent what is known: `others` is added, by default nothing."""

    def __init__(self, others: float = 0.0) -> None:
        super().__init__(None, [0, 1])
        self.others = others

    def sum(self, values: Tensor) -> Tensor:
        return values + self.others


def layer_of(f: nn.Module | None = None, **criteria: Any) -> AL:
    """Return a layer from 4 to 6, with a target of 3."""
    f = nn.Linear(4, 6) if f is None else f
    enc = ENC(f, nn.Linear(6, 2), criteria.get("enc"))
    return AL(enc, AE(nn.Linear(3, 2), nn.Linear(2, 3), criteria.get("ae")), lr=0.1)


def step(layer: AL, share: Share, others: float = 0.0) -> GradientAveraging:
    """Take a step with a replica's share of a batch of random rows."""
    layer.averaging = averaging = GradientAveraging(Known(others))
    averaging.begin(layer, share, layer.row_dropouts())
    if share.size:
        layer(torch.randn(share.size, 4), torch.randn(share.size, 3))
    layer.backward_and_update()
    return averaging


class Negatives(ENC):
    """Compares each row with the others."""

    def forward(self, x: Any, code: Any) -> tuple[Tensor, Any]:
        hidden = self.hidden(x)
        return (self.bridge(hidden) @ code.T).softmax(0).diag().mean(), hidden


class Tripled(nn.MSELoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return (input - target).square().mean(0).sqrt().sum()


class SaysSo(nn.Module):
    row_separable = True

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean()


@pytest.mark.parametrize(
    ("criterion", "separable"),
    [
        (None, True),
        (nn.L1Loss(), True),
        (nn.MSELoss(reduction="sum"), False),
        (nn.CrossEntropyLoss(), True),
        (nn.CrossEntropyLoss(weight=torch.ones(2)), False),
        (nn.CrossEntropyLoss(ignore_index=0), False),
        (Tripled(), False),
        (SaysSo(), True),
        (Association("mse"), False),
        (lambda one, other: (one - other).mean(), False),
    ],
)
def test_only_criteria_that_are_known_to_be_means_over_rows_are_divided(criterion: Any, separable: bool) -> None:
    assert layer_of(enc=criterion).row_separable is separable
    assert layer_of(ae=criterion).row_separable is separable


def test_what_computes_its_losses_in_another_way_is_not_divided() -> None:
    layer = AL(Negatives(nn.Linear(4, 6), nn.Linear(6, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
    assert not layer.row_separable
    with pytest.raises(UnfitLayersError, match="layer 'a' cannot have replicas: its loss is not known to be a mean"):
        refuse_inseparable([("a", layer)])


def test_the_losses_of_classifiers_are_divided_where_the_table_stays_whole() -> None:
    enc, ae = ENC(nn.Linear(4, 6), nn.Linear(6, 2), Association()), AE(nn.Linear(3, 2), nn.Linear(2, 3))
    assert not AL(enc, AE(ae.g, ae.h, Reconstruction("mse"))).row_separable
    layer = ClassifierAL(enc, AE(ae.g, ae.h, Reconstruction("mse")))
    assert layer.row_separable
    table, labels = torch.eye(3), torch.arange(6) % 3
    x, y = layer.split(torch.arange(24.0).view(6, 4), (table, labels), 2, 5)
    assert (x[0, 0], y[1].tolist()) == (8.0, [2, 0, 1])
    assert y[0] is table
    (joined, (same, all_labels)) = layer.join([(x, y), (x, y)])
    assert (len(joined), same is table, all_labels.tolist()) == (6, True, [2, 0, 1, 2, 0, 1])
    assert all(isinstance(one, ClassifierAL) and one.row_separable for one in build("vgg"))


class Own(AL):
    def backward_and_update(self) -> None:
        super().backward_and_update()


def test_a_step_of_ones_own_and_gradient_hooks_are_refused() -> None:
    layer = layer_of()
    own = Own(layer.enc, layer.ae)
    with pytest.raises(UnfitLayersError, match="Own overrides backward_and_update"):
        refuse_inseparable([("a", own)])
    layer.enc.f.weight.register_hook(lambda gradient: gradient.clamp(-1, 1))
    with pytest.raises(UnfitLayersError, match=r"enc\.f\.weight has a hook"):
        refuse_inseparable([("a", layer)])


def test_a_replica_without_rows_takes_the_gradients_of_the_others() -> None:
    """And of what it holds itself, nothing counts, not even a NaN."""
    layer = layer_of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    norm = layer.enc.f[1]
    assert isinstance(norm.running_mean, Tensor)
    norm.running_mean.fill_(float("nan"))
    before = layer.enc.b.weight.clone()
    step(layer, Share(0, 0, 1), others=1.0)
    assert torch.equal(norm.running_mean, torch.ones(6))
    assert not torch.equal(layer.enc.b.weight, before)
    assert {name: float(loss) for name, loss in layer.losses().items()} == {"assoc": 1.0, "ae": 1.0}
    assert int(norm.num_batches_tracked) == 1, "as those that have seen rows count"


def test_a_batch_that_is_skipped_leaves_no_mark_on_a_replica_without_rows() -> None:
    layer = layer_of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    layer.guard = Guard()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    step(layer, Share(0, 0, 1), others=float("nan"))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_statistics_of_a_frozen_normalization_stay_as_they_are() -> None:
    layer = layer_of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    norm = layer.enc.f[1].eval()
    before = norm.running_mean.clone()  # type: ignore[union-attr, operator]
    step(layer, Share(0, 3, 7), others=1.0)
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        out: Tensor = self.linear(x)
        return out


def test_a_buffer_that_replicas_would_each_have_of_their_own_is_refused() -> None:
    with pytest.raises(LayerError, match=r"the buffer enc\.f\.seen changes in training"):
        step(layer_of(Counting()), Share(0, 3, 6))


def test_dropout_draws_for_whole_batches_again_after_the_step() -> None:
    layer = layer_of(nn.Sequential(nn.Linear(4, 6), Dropout(0.5)))
    step(layer, Share(0, 2, 6))
    drop = layer.enc.f[1]
    assert isinstance(drop, Dropout)
    assert drop.rows is None
    drop.rows = (0, 3, 6)
    with pytest.raises(LayerError, match=r"an input of shape \(1, 5\) has not the 3 rows"):
        drop(torch.ones(1, 5))


def test_synchronized_normalizations_wait_in_training_steps_alone_and_are_put_back() -> None:
    layer = layer_of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    original = layer.enc.f[1]
    group = Known()
    assert synchronize(layer, group) == 1
    whole = layer.enc.f[1]
    assert isinstance(whole, WholeBatchNorm)
    x = torch.randn(5, 6)
    group.sum = lambda values: pytest.fail("nobody would answer")  # type: ignore[method-assign]
    assert torch.equal(whole(x), nn.BatchNorm1d(6)(x))
    layer.eval()
    undo(layer)
    assert layer.enc.f[1] is original
    assert not original.training


def test_a_normalization_that_cannot_be_synchronized_is_refused() -> None:
    class Other(nn.BatchNorm1d):
        pass

    layer = layer_of(nn.Sequential(nn.Linear(4, 6), Other(6)))
    with pytest.raises(UnfitLayersError, match=r"layer 'a': enc\.f\.1 is a Other, which cannot be synchronized"):
        refuse_unknown([("a", layer)])


@pytest.mark.parametrize(
    ("devices", "workers"),
    [
        (["cpu", "cpu", "cpu"], 3),
        (["cpu:2", "cpu:0", "cpu:1"], 3),
        (["cpu:0", "cpu:0", "cpu:1"], None),
        (["cpu:0", "cpu", "cpu:1"], None),
    ],
)
def test_every_layer_of_a_replica_finds_a_worker(devices: list[str], workers: int | None) -> None:
    stack: ALStack = build("convolutions")
    stack.set_device(devices)
    if workers is None:
        with pytest.raises(PlacementError, match="layers of a stage with replicas need a worker each"):
            _enough_workers(list(stack.items()), 1, 1)
    else:
        assert _enough_workers(list(stack.items()), 1, 1) == (workers, 1)


def test_rows_that_cannot_be_told_are_refused() -> None:
    assert count_rows((torch.ones(5, 2), torch.ones(()))) == 5
    with pytest.raises(LayerError, match="its tensors have 3 and 5 in dimension 0; override split and join"):
        count_rows((torch.ones(5), torch.ones(3)))
    assert take_rows((torch.arange(5), torch.tensor(7), "a"), 1, 3, 5)[0].tolist() == [1, 2]
    with pytest.raises(LayerError, match=r"a tensor of shape \(3, 3\) has not the 5 rows"):
        take_rows((torch.ones(5), torch.eye(3)), 0, 2, 5)
    with pytest.raises(LayerError, match="structures that differ"):
        join_rows([(torch.ones(2),), torch.ones(2)])
    with pytest.raises(LayerError, match="rows that do not fit together"):
        join_rows([torch.ones(2, 3), torch.ones(2, 4)])
