"""The means of an epoch's losses, and the watch over them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from training.trainers.losses import BadLoss, EpochLosses, first_not_finite

NAN, INF = float("nan"), float("inf")
NAMES = {"one": ("a", "b"), "two": ("a", "b")}
MIXED = {"one": ("a",), "two": ("a", "c", "b")}


def batch(*values: list[float], names: Mapping[str, tuple[str, ...]] = NAMES) -> list[dict[str, Tensor]]:
    """Return the losses of a batch, a list of numbers per layer."""
    return [
        {loss: torch.tensor(value) for loss, value in zip(losses, numbers, strict=True)}
        for losses, numbers in zip(names.values(), values, strict=True)
    ]


def test_means_are_those_of_the_batches_and_can_be_carried_on() -> None:
    batches = [batch([float(i), 2.0 * i], [1.0, 3.0]) for i in range(1, 5)]
    expected = {"one": {"a": 2.5, "b": 5.0}, "two": {"a": 1.0, "b": 3.0}}
    for at in range(5):
        first, second = EpochLosses(NAMES), EpochLosses(NAMES)
        for step, losses in enumerate(batches[:at]):
            first.add(step, losses)
        second.load(json.loads(json.dumps(first.state())))  # as a checkpoint holds it
        for step, losses in enumerate(batches[at:], start=at):
            first.add(step, losses)  # what was taken is a copy
            second.add(step, losses)
        assert second.means() == first.means() == expected
    first.clear()
    assert all(math.isnan(mean) for losses in first.means().values() for mean in losses.values())


def test_layers_may_differ_in_the_number_of_their_losses() -> None:
    losses = EpochLosses(MIXED, skipping=True)
    losses.add(0, batch([1.0], [2.0, 3.0, 4.0], names=MIXED))
    losses.add(1, batch([3.0], [2.0, NAN, 4.0], names=MIXED))
    assert losses.means() == {"one": {"a": 2.0}, "two": {"a": 2.0, "c": 3.0, "b": 4.0}}
    assert losses.skipped() == {"two": 1}


def test_sums_are_exact_to_the_last_bit_after_a_checkpoint() -> None:
    torch.manual_seed(0)
    whole, resumed = EpochLosses({"": ("loss",)}), EpochLosses({"": ("loss",)})
    for step, value in enumerate(torch.rand(100)):
        whole.add(step, [{"loss": value}])
        resumed.add(step, [{"loss": value}])
        state = json.loads(json.dumps(resumed.state()))
        resumed = EpochLosses({"": ("loss",)})
        resumed.load(state)
    assert whole.means() == resumed.means()


def test_what_is_not_finite_is_left_out_by_layer_and_counted() -> None:
    losses = EpochLosses(NAMES, skipping=True)
    for step, pair in enumerate(([1.0, 2.0], [NAN, 4.0], [3.0, INF], [5.0, 6.0])):
        losses.add(step, batch(pair, [1.0, 1.0]))
    expected = {"one": {"a": 3.0, "b": 4.0}, "two": {"a": 1.0, "b": 1.0}}
    assert losses.means() == expected
    assert losses.skipped() == {"one": 2}
    again = EpochLosses(NAMES, skipping=True)
    again.load(losses.state())
    again.add(4, batch([NAN, 1.0], [1.0, 1.0]))
    assert again.skipped() == {"one": 3}
    assert again.means() == expected


def test_where_all_is_left_out_there_is_no_mean() -> None:
    losses = EpochLosses({"": ("loss",)}, skipping=True)
    losses.add(0, [{"loss": torch.tensor(NAN)}])
    assert math.isnan(losses.means()[""]["loss"])


@pytest.mark.parametrize("bad", [0, 1, 48, 49, 50, 51, 99, 120])
def test_the_first_bad_batch_and_layer_are_found(bad: int) -> None:
    losses, found = EpochLosses(NAMES), []
    for step in range(130):
        losses.add(1000 + step, batch([1.0, 2.0], [3.0, INF if step >= bad else 4.0]))
        if losses.due and (one := losses.look()):
            found.append(one)
            break
    else:
        found.append(losses.look())
    assert found == [BadLoss(1000 + bad, "two", {"a": 3.0, "b": INF})]


def test_of_two_bad_layers_in_a_batch_the_lower_one_is_named() -> None:
    losses = EpochLosses(NAMES)
    losses.add(3, batch([1.0, 1.0], [1.0, 1.0]))
    losses.add(4, batch([1.0, NAN], [NAN, 1.0]))
    found = losses.look()
    assert found is not None
    assert (found.step, found.layer) == (4, "one")


def test_it_is_time_to_look_every_fifty_batches_and_what_was_seen_is_forgotten() -> None:
    losses = EpochLosses({"": ("loss",)})
    due = []
    for step in range(120):
        losses.add(step, [{"loss": torch.tensor(1.0)}])
        due.append(losses.due)
        if losses.due:
            assert losses.look() is None
    assert [step for step, now in enumerate(due) if now] == [49, 99]


class Counter(TorchDispatchMode):
    """Counts operations, which on a GPU are kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_batch_costs_the_same_few_kernels_however_many_layers_there_are() -> None:
    """Guards a fault: two to three tiny kernels per layer and batch."""

    def operations(layers: int) -> list[str]:
        names = {f"layer_{number}": ("a", "b") for number in range(layers)}
        losses = EpochLosses(names)
        values = batch(*[[1.0, 2.0]] * layers, names=names)
        losses.add(0, values)
        with Counter() as counter:
            losses.add(1, values)
        # `stack` of numbers is a view per number and one kernel.
        return [name for name in counter.names if "unsqueeze" not in name]

    assert len(operations(1)) == len(operations(20)) <= 2


def test_a_layer_with_a_number_that_is_not_finite_is_named() -> None:
    assert first_not_finite({"one": {"a": [torch.ones(2), 3]}, "two": {"b": torch.tensor([1, 2])}}) is None
    assert first_not_finite({"one": {"a": 3}, "two": {"a": [torch.tensor([1.0, INF])]}}) == "two"
