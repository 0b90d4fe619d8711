"""Replicas divide the rows of every batch: what they compute is what one process computes, but for rounding."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from ALPackage.testing import run_distributed
from tests.ALPackage.schedules import on_replicas

#: Numbers of layers: vgg 4, resnet 5, lstm 4, transformer 4, convolutions 3.
CASES: dict[int, list[tuple[str, list[int] | None, list[int]]]] = {
    2: [("convolutions", [0, 0, 0], [2]), ("transformer", None, [2])],
    3: [("vgg", [0, 2, 2, 2], [2, 1]), ("lstm", [0, 1, 1, 1], [1, 2]), ("convolutions", None, [3])],
    4: [("transformer", [0, 1, 1, 3], [1, 2, 1]), ("resnet", [0, 0, 0, 2, 2], [2, 2]), ("lstm", [0, 0, 1, 1], [1, 3])],
}


def assert_close(found: Any, expected: Any, relative: float, smallest: float) -> None:
    pairs = list(zip(tree_leaves(found), tree_leaves(expected), strict=True))
    assert len(pairs) > 8
    for one, other in pairs:
        if isinstance(other, (float, torch.Tensor)):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=relative, atol=smallest)
        else:
            assert one == other


def check(kind: str, world: int, cases: list[tuple[str, list[int] | None, list[int]]], **options: Any) -> None:
    """Compare losses, weights, buffers, moments and predictions with those of one process."""
    found = run_distributed(
        on_replicas.train_cases, world, [(model, kind, *cut, *options.values()) for model, *cut in cases], timeout=240.0
    )
    for number, (model, _, replicas) in enumerate(cases):
        expected = on_replicas.alone(model, kind, **options)
        # In float32 the sums of two halves and of a whole differ in their last bits.
        limits = (1e-9, 1e-12) if kind == "float64" else (1e-5, 1e-6)
        first = found[0][number]
        for part in ("losses", "state", "predictions"):
            assert_close(first[part], expected[part], *limits)
        by_layer: dict[str, list[list[torch.Tensor]]] = {}
        for of_rank in found:
            for name, weights in of_rank[number]["own"].items():
                by_layer.setdefault(name, []).append(weights)
        assert sum(map(len, by_layer.values())) >= sum(replicas)
        for same in by_layer.values():
            for other in same[1:]:
                assert all(map(torch.equal, same[0], other)), "replicas have the same weights bit for bit"


def test_two_replicas_are_one_process_but_for_rounding() -> None:
    """20 steps of Adam in float64, uneven rows, dropout; a batch of one row, which leaves a replica without any."""
    check("float64", 2, CASES[2])


@pytest.mark.slow
@pytest.mark.parametrize("world", [3, 4])
def test_any_numbers_of_replicas_are_one_process_but_for_rounding(world: int) -> None:
    check("float64", world, CASES[world])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_replicas_in_float32_with_sgd(world: int) -> None:
    check("float32", world, CASES[world])


@pytest.mark.slow
def test_synchronized_batch_normalization_counts_the_rows_of_all_replicas() -> None:
    """The running statistics are those of whole batches too."""
    cases = [("convolutions", [0, 0, 0], [2]), ("vgg", None, [2])]
    found = run_distributed(
        on_replicas.train_with_normalization, 2, [(model, "float64", *cut) for model, *cut in cases], timeout=240.0
    )
    for number, (model, _, _) in enumerate(cases):
        expected = on_replicas.alone(model, "float64", normalized=True, smallest=4)
        for part in ("losses", "state", "predictions"):
            assert_close(found[0][number][part], expected[part], 1e-9, 1e-11)


def test_the_report_counts_what_replicas_hold_and_send() -> None:
    found = run_distributed(on_replicas.train, 2, "convolutions", "float32", [0, 0, 0], [2], timeout=120.0)[0]
    reports = found["reports"]
    assert [(one.rank, one.replica) for one in reports] == [(0, 0), (1, 1)]
    assert reports[0].layers == reports[1].layers
    assert [one.weights for one in reports] == [found["bytes"], found["bytes"]]
    parameters = sum(one.numel() for layer in on_replicas.build("convolutions") for one in layer.parameters())
    assert reports[0].sent["replicas"] >= 4 * parameters * 0.9, "gradients"
    assert reports[0].sent["rank1"] > 0, "half of the images"


@pytest.mark.slow
def test_a_layer_whose_loss_mixes_rows_has_no_replicas() -> None:
    for words in run_distributed(on_replicas.refused, 2):
        assert words.startswith("layer 'conv_1' cannot have replicas: its loss is not known to be a mean over the rows")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_in_a_replica_ends_the_others_which_wait_for_it(rank: int) -> None:
    began = time.monotonic()
    found = run_distributed(on_replicas.fail_in_replica, 2, rank, 3)
    assert time.monotonic() - began < 40.0
    for number, (kind, words, where) in enumerate(found):
        assert kind == "StageError", words
        assert "layer 'conv_1' failed on batch 3" in words
        assert words.endswith("ValueError: the weather is bad")
        assert where == (None if number == rank else rank)
