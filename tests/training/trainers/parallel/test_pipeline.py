"""Pipelines of micro-batches train as one process does: every schedule, padded texts, dropout, odd batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ALPackage.errors import LayerError
from ALPackage.testing import run_distributed
from models import BPModel
from training.trainers.parallel.stage import shapes_between

from . import on_ranks as case
from .test_ddp import far

#: The stage of each of five layers.
TWO, FOUR = [0, 0, 0, 1, 1], [0, 1, 2, 3, 3]


def test_weights_moments_and_losses_are_those_of_one_process() -> None:
    cases = [
        ("gpipe", "transformer", TWO, 0.2),
        ("1f1b", "lstm", TWO, 0.0),
        ("interleaved", "transformer", FOUR, 0.0),
        ("zb", "transformer", FOUR, 0.2),
        ("zb", "lstm", FOUR, 0.0),
    ]
    found = run_distributed(case.texts_in_stages, 2, cases)
    for (way, name, _, dropout), there in zip(cases, found[0], strict=True):
        model = case.text_model(name, torch.float64, dropout)
        here = case.alone(model, case.staged_texts(dropout, padded=True))
        assert there["losses"] == pytest.approx(here["losses"], rel=1e-12), way
        assert list(there["state"]) == list(here["state"])
        assert far(here["state"], there["state"]) < 1e-9, way


@pytest.mark.slow
@pytest.mark.parametrize(("way", "stages"), [("gpipe", TWO), ("1f1b", TWO), ("interleaved", FOUR), ("zb", FOUR)])
def test_odd_batches_train_with_batch_normalization_and_a_bad_one_is_left_out(way: str, stages: list[int]) -> None:
    found, _ = run_distributed(case.images_in_stages, 2, way, stages, 2)
    assert found["skipped"] == {"": 1}
    assert len(found["losses"]) == 4
    leaves = [leaf for leaf in tree_leaves(found["state"]) if isinstance(leaf, Tensor)]
    assert all(bool(torch.isfinite(leaf).all()) for leaf in leaves)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_stages_and_rank_0_predicts_with_all_weights() -> None:
    step, batches = 4, case.staged_texts(0.0, padded=True)
    begun = case.alone(case.text_model("transformer", torch.float64, 0.0), batches[:step])
    found, *_ = run_distributed(case.resumed_in_stages, 3, "1f1b", [0, 0, 1, 2, 2], begun["state"], step)
    model = case.text_model("transformer", torch.float64, 0.0)
    whole = case.alone(model, batches)
    assert found["losses"] == pytest.approx(whole["losses"][step:], rel=1e-12)
    assert far(whole["state"], found["state"]) < 1e-9
    with torch.no_grad():
        assert torch.allclose(found["logits"], model.eval()(case.texts()[0][0]), rtol=1e-9)


@pytest.mark.slow
def test_a_stage_may_have_no_weights() -> None:
    """Guards a bug: its rank failed, as an optimizer of nothing is refused."""
    found, _ = run_distributed(case.images_behind_a_stage_without_weights, 2)
    here = case.alone(case.flat_model(), case.images(8, 5))
    assert found["losses"] == pytest.approx(here["losses"], rel=1e-5)
    assert list(found["state"]) == ["flat", "head"]


def test_layers_that_hand_on_something_else_are_refused() -> None:
    model = case.vision_model()
    assert shapes_between(model, torch.zeros(3, 1, 16, 16), None)[-1] == ("float32", [case.CLASSES])
    odd = BPModel([], torch.nn.Flatten(0))
    with pytest.raises(LayerError, match=r"^layer 'head' hands on something that a pipeline cannot"):
        shapes_between(odd, torch.zeros(3, 4), None)
