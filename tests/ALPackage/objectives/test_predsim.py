"""Prediction and similarity matching: what the classifier and the similarities read."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ALPackage.bridges import bridge_to
from ALPackage.objectives.part import Part
from ALPackage.objectives.predsim import PredictionAndSimilarity, Spread, linear_classifier, pooling

LABELS = torch.tensor([0, 2, 1, 0])


def part_of(returned: torch.Tensor) -> Part:
    return Part("one", nn.Identity(), bridge_to(returned), returned, returned)


@pytest.mark.parametrize(
    ("channels", "height", "width", "inputs", "windows", "kept"),
    [
        (4, 8, 8, 256, None, (8, 8)),
        (4, 8, 8, 128, (2, 1), (4, 8)),
        (4, 8, 8, 64, (2, 2), (4, 4)),
        (4, 5, 5, 40, (2, 2), (3, 3)),
        (4, 7, 3, 1, (8, 8), (1, 1)),
    ],
)
def test_maps_are_averaged_until_few_enough_are_left(
    channels: int, height: int, width: int, inputs: int, windows: tuple[int, int] | None, kept: tuple[int, int]
) -> None:
    pool, sizes = pooling(channels, height, width, inputs)
    assert sizes == kept
    assert pool(torch.randn(2, channels, height, width)).shape == (2, channels, *kept)
    assert getattr(pool, "kernel_size", None) == windows


def test_the_similarities_of_maps_are_those_of_their_spread() -> None:
    maps = torch.randn(3, 5, 4, 4)
    expected = torch.stack([torch.stack([channel.flatten().std() for channel in sample]) for sample in maps])
    torch.testing.assert_close(Spread()(maps), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert Spread()(maps.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(4, 5, 6, 6), (4, 2, 6, 6), (4, 5, 1, 1), (4, 7, 5), (4, 7)])
def test_any_output_has_both_losses_and_a_classifier_that_starts_at_zero(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    layer = PredictionAndSimilarity().layers([part_of(x)], 3)["one"]
    start = layer.readout(x)
    assert torch.equal(start, start[:1].expand(4, 3)), "it says the same of every sample"
    layer(x, LABELS)
    assert layer.losses()["sim"] > 0
    assert layer.losses()["pred"].item() == pytest.approx(0.01 * F.cross_entropy(start, LABELS).item(), rel=1e-5)
    layer.backward_and_update()
    assert not torch.equal(layer.readout(x)[0], layer.readout(x)[1])


def test_the_shares_of_the_losses_add_up_to_one() -> None:
    x = torch.randn(4, 7)
    torch.manual_seed(0)
    all_similar = PredictionAndSimilarity(beta=1.0).layers([part_of(x)], 3)["one"]
    torch.manual_seed(0)
    a_quarter = PredictionAndSimilarity(beta=0.25).layers([part_of(x)], 3)["one"]
    for layer in (all_similar, a_quarter):
        layer(x, LABELS)
    assert all_similar.losses()["pred"] == 0
    torch.testing.assert_close(a_quarter.losses()["sim"], 0.25 * all_similar.losses()["sim"])


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta: got 1\.5"):
        PredictionAndSimilarity(beta=1.5)


def test_where_a_layer_returns_more_than_a_tensor_its_first_entry_counts() -> None:
    maps = torch.randn(2, 4, 3, 3)
    part = Part("one", nn.Identity(), bridge_to((maps, 1)), maps, (maps, 1))
    assert linear_classifier(part, 3, 4096)((maps, 1)).shape == (2, 3)
