"""A bridge suits what a layer returns, reads its mask, and refuses what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage.bridges import TokenMean, bridge_to, shrink


@pytest.mark.parametrize("kind", ["auto", "linear", "hidden"])
@pytest.mark.parametrize(
    "output",
    [
        torch.zeros(2, 8, 5, 5),
        torch.zeros(2, 8, 7, 3),
        torch.zeros(2, 8, 1, 4),
        torch.zeros(2, 6, 8),
        torch.zeros(2, 8),
        (torch.zeros(2, 6, 8), torch.tensor([6, 1])),
        {"hidden": torch.zeros(2, 8, 4, 4), "more": torch.zeros(2)},
        (torch.zeros(2, 8), torch.zeros(2, 3)),
    ],
)
def test_outputs_become_codes_and_train(output: Any, kind: str) -> None:
    bridge = bridge_to(output, kind)(10)
    codes = bridge(output)
    assert codes.shape == (2, 10)
    codes.sum().backward()
    assert all(parameter.grad is not None for parameter in bridge.parameters())


def test_only_tokens_have_no_hidden_layer_by_default() -> None:
    def linear(output: torch.Tensor) -> int:
        return sum(isinstance(one, nn.Linear) for one in bridge_to(output)(4))  # type: ignore[attr-defined]

    assert [linear(torch.zeros(2, *shape)) for shape in ((3, 4), (3,), (3, 4, 4))] == [1, 2, 2]


@pytest.mark.parametrize(
    ("mask", "reading"),
    [
        (torch.tensor([2, 5]), "lengths"),
        (torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]), "real"),
        (torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool(), "real"),
        (torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1]])[:, None, None], "real"),
        (torch.tensor([[0.0, 0, -1e9, -1e9, -1e9], [0, 0, 0, 0, 0]]), "padding"),
        (torch.tensor([[0.0, 0, -1e9, -1e9, -1e9], [0, 0, 0, 0, 0]])[:, None, None].expand(2, 3, 5, 5), "padding"),
    ],
)
def test_padding_does_not_count(mask: torch.Tensor, reading: str) -> None:
    tokens = torch.randn(2, 5, 3)
    mean = TokenMean.of((tokens, mask))
    assert (mean.mask, mean.reading) == (1, reading)
    torch.testing.assert_close(mean((tokens, mask)), torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)]))


def test_a_padding_mask_is_known_by_its_key() -> None:
    tokens, padding = torch.randn(1, 3, 2), torch.tensor([[False, False, True]])
    output = {"src": tokens, "src_key_padding_mask": padding}
    torch.testing.assert_close(TokenMean.of(output)(output), tokens[:, :2].mean(1))


LENGTHS = torch.tensor([2, 4])
REAL = torch.arange(4) < LENGTHS[:, None]


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(lambda real: real, id="real"),
        pytest.param(lambda real: ~real, id="padding"),
        pytest.param(lambda real: (~real).float(), id="padding in numbers"),
        pytest.param(lambda real: ~real[:, None, None].expand(-1, 1, 4, -1), id="padding of an attention"),
    ],
)
@pytest.mark.parametrize("example", [REAL, torch.ones(2, 4, dtype=torch.bool), REAL[:1].repeat(2, 1), REAL.flip(1)])
def test_a_mask_without_a_key_is_read_as_the_example_shows(
    mask: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor
) -> None:
    """Guards a bug: torch's masks of padding were taken for masks of what is real, and only padding was averaged."""
    mean = TokenMean.of((torch.randn(2, 4, 3), mask(example)))
    tokens = torch.randn(2, 4, 3)
    expected = torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    torch.testing.assert_close(mean((tokens, mask(REAL))), expected)


def test_a_mask_that_is_added_is_known_from_an_example_without_padding() -> None:
    """Guards a bug: it was read as one that says that nothing is real."""
    tokens = torch.randn(2, 3, 4)
    mean = TokenMean.of((tokens, torch.zeros(2, 1, 1, 3)))
    assert mean.reading == "padding"
    torch.testing.assert_close(mean((tokens, torch.zeros(2, 1, 1, 3))), tokens.mean(1))
    assert TokenMean.of((torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))).mask is None, "a second stream is no mask"


def test_rows_of_a_convolution_are_averaged_over_their_length() -> None:
    bridge = bridge_to(torch.zeros(2, 8, 6), channels_first=True)(4)
    x = torch.randn(2, 8, 6)
    assert bridge(x).shape == (2, 4)
    torch.testing.assert_close(bridge(x), bridge(x[:, :, [1, 0, 2, 5, 4, 3]]))  # of each half


def test_a_sample_that_is_all_padding_gets_zeros() -> None:
    assert TokenMean(1, "real")((torch.ones(1, 3, 2), torch.zeros(1, 3))).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("output", [torch.zeros(2), torch.zeros(2, 3, dtype=torch.int64), {}, ("a",), torch.zeros(())])
def test_what_has_no_features_has_no_bridge(output: Any) -> None:
    with pytest.raises(ValueError, match=r"there is no bridge for an output with .*bridge= of your own"):
        bridge_to(output)


def test_a_function_makes_the_bridge_and_an_unknown_name_is_refused() -> None:
    output = torch.zeros(2, 7, 7, dtype=torch.int64)
    assert bridge_to(output, lambda one, width: nn.Linear(one.shape[2], width))(5).out_features == 5
    with pytest.raises(ValueError, match="bridge: got 'deep'; expected auto, linear, hidden"):
        bridge_to(torch.zeros(2, 3), "deep")


@pytest.mark.parametrize(("sizes", "to"), [((4, 4), (2, 2)), ((5, 7), (2, 2)), ((3, 1), (2, 1)), ((2, 2), (2, 2))])
def test_maps_shrink_to_what_was_asked_for(sizes: tuple[int, int], to: tuple[int, int]) -> None:
    maps = torch.arange(float(sizes[0] * sizes[1])).view(1, 1, *sizes)
    torch.testing.assert_close(shrink(sizes, to)(maps), nn.functional.adaptive_avg_pool2d(maps, to))
