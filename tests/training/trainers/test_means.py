"""Running means and the watch over losses."""

from __future__ import annotations

import math

import pytest
import torch

from training.trainers.means import LossWatch, RunningMeans, all_finite

NAN, INF = float("nan"), float("inf")


def test_means_are_those_of_the_batches_and_can_be_carried_on() -> None:
    values = [[torch.tensor([float(i), 2.0 * i]), torch.tensor([1.0, 3.0])] for i in range(1, 5)]
    whole = RunningMeans()
    for value in values:
        whole.add(value)
    assert whole.values() == [[2.5, 5.0], [1.0, 3.0]]
    for at in range(5):
        first, second = RunningMeans(), RunningMeans()
        for value in values[:at]:
            first.add(value)
        second.load(first.state())
        for value in values[at:]:
            first.add(value)  # what was taken is a copy
            second.add(value)
        assert second.values() == first.values() == whole.values()
    whole.clear()
    assert whole.values() == []


def test_what_is_not_finite_is_left_out_by_layer_and_counted() -> None:
    means = RunningMeans(skipping=True)
    for pair in ([1.0, 2.0], [NAN, 4.0], [3.0, INF], [5.0, 6.0]):
        means.add([torch.tensor(pair), torch.tensor([1.0, 1.0])])
    assert means.values() == [[3.0, 4.0], [1.0, 1.0]]
    assert means.left_out() == [2, 0]
    again = RunningMeans(skipping=True)
    again.load(means.state())
    again.add([torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0])])
    assert again.left_out() == [3, 0]
    assert again.values() == [[3.0, 4.0], [1.0, 1.0]]


def test_where_all_is_left_out_there_is_no_mean() -> None:
    means = RunningMeans(skipping=True)
    means.add([torch.tensor(NAN)])
    assert math.isnan(means.values()[0])


@pytest.mark.parametrize("bad", [0, 1, 48, 49, 50, 51, 99, 120])
def test_the_watch_tells_the_first_bad_batch_and_layer(bad: int) -> None:
    watch, found = LossWatch(), []
    for step in range(130):
        losses = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, INF if step >= bad else 4.0])]
        if (told := watch.add(1000 + step, losses)) is not None:
            found.append(told)
            break
    else:
        found.append(watch.look())
    assert found == [(1000 + bad, 1, [3.0, INF])]


def test_the_watch_looks_seldom() -> None:
    watch = LossWatch()
    assert [watch.add(step, [torch.tensor(NAN)]) is None for step in range(50)] == [True] * 49 + [False]
    assert watch.look() is None, "what was looked at is not looked at again"


def test_all_finite() -> None:
    assert all_finite({"a": [torch.ones(2), 3], "b": torch.tensor([1, 2])})
    assert not all_finite({"a": [torch.tensor([1.0, INF])]})
