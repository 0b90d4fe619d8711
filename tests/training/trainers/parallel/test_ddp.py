"""DDP trains as one process does: uneven rows, batches with fewer rows than ranks, dropout, resuming, bad batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ALPackage.testing import run_distributed

from . import on_ranks as case


def far(one: Any, two: Any) -> float:
    """Return the largest difference of two states, relative to the largest number of a tensor."""
    pairs = zip(tree_leaves(one), tree_leaves(two), strict=True)
    return max(
        float((a - b).abs().max() / a.abs().max().clamp(min=1e-3))
        for a, b in pairs
        if isinstance(a, Tensor) and a.is_floating_point()
    )


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_moments_and_losses_are_those_of_one_process(world: int) -> None:
    models = ["transformer", "lstm"]
    found = run_distributed(case.texts_in_ddp, world, models, torch.float64)
    for name, there in zip(models, found[0], strict=True):
        here = case.alone(case.text_model(name, torch.float64), case.texts())
        assert there["losses"] == pytest.approx(here["losses"], rel=1e-12)
        assert far(here["state"], there["state"]) < 1e-9


@pytest.mark.slow
def test_batch_normalization_takes_the_statistics_of_a_ranks_rows() -> None:
    """Rank 0's are kept. No rank has a single row, of which there are no statistics."""
    (found, mean), (_, other) = run_distributed(case.images_in_ddp, 2)
    assert mean != other
    kept = found["state"]["conv_1"]["layer"]
    name = next(name for name in kept if name.endswith("running_mean"))
    assert float(kept[name].sum()) == mean


@pytest.mark.slow
def test_a_bad_row_in_one_rank_has_all_ranks_skip_the_step() -> None:
    found, _ = run_distributed(case.bad_batch_in_ddp, 2, 1)
    assert found["skipped"] == {"": 1}
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree_leaves(found["state"]) if isinstance(leaf, Tensor))


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_over_ranks() -> None:
    batches, step = case.texts(), 7
    begun = case.alone(case.text_model("transformer", torch.float64), batches[:step])
    found, _ = run_distributed(case.resumed_in_ddp, 2, begun["state"], step, batches)
    whole = case.alone(case.text_model("transformer", torch.float64), batches)
    assert found["losses"] == pytest.approx(whole["losses"][step:], rel=1e-12)
    assert far(whole["state"], found["state"]) < 1e-9


@pytest.mark.slow
def test_three_ranks_go_on_from_their_own_checkpoint_bit_for_bit() -> None:
    """With two, sums have one order only."""
    step = 7
    whole, begun, rest = run_distributed(case.interrupted_in_ddp, 3, step)[0]
    assert begun["losses"] + rest["losses"] == whole["losses"]
    assert all(map(_equal, tree_leaves(rest["state"]), tree_leaves(whole["state"])))


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


@pytest.mark.slow
def test_an_error_in_one_rank_ends_all() -> None:
    first, second = run_distributed(case.fails_in_a_rank, 2)
    assert first.startswith("RankError: a rank is gone")
    assert second.startswith(("RuntimeError", "IndexError", "ValueError"))
