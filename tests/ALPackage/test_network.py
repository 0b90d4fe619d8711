"""Blocks become the layers of a network: named, called one after another, joined by their work, without the head."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage.network import Called, read_network
from ALPackage.randomness import Dropout

IMAGES = torch.randn(2, 3, 8, 8)


def small_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_blocks_without_weights_join_the_one_before_and_the_head_is_left_out() -> None:
    network = read_network(small_cnn(), 5, IMAGES)
    assert list(network.layers) == ["block_1-block_3", "block_4-block_6", "block_7"]
    assert network.head is not None
    assert [type(one).__name__ for one in network.head] == ["Dropout", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert network.outputs["block_4-block_6"].shape == (2, 8, 4, 4)
    assert network.notes == ("block_3: made out of place, because the next layer needs what this one hands on",)
    assert "block_4-block_6" in network.text()


def test_a_last_linear_map_to_another_number_of_classes_is_said() -> None:
    """It trains as a layer: right for a network without a head, and a surprise for a pretrained one with its own."""
    net = small_cnn()
    net[2].inplace = False
    assert read_network(net, 5, IMAGES).notes == ()
    network = read_network(net, 7, IMAGES)
    assert list(network.layers)[-1] == "block_11"
    assert len(network.notes) == 1
    assert network.notes[0].startswith(
        "block_11: ends in a linear map, but to 5 and not to 7 classes, so it is trained"
    )
    # In a block with more than a head has, it is a layer's.
    before = nn.Sequential(nn.ReLU(), nn.Linear(5, 6))
    assert read_network(nn.Sequential(*net, before), 7, IMAGES).notes == ()


@pytest.mark.parametrize(
    "ending",
    [
        [nn.Linear(8, 5), nn.Softmax(1)],
        [nn.Sequential(nn.Linear(8, 5), nn.Softmax(1))],
        [nn.Sequential(nn.Linear(8, 5), nn.Sequential(nn.Softmax(1)))],
    ],
)
def test_a_softmax_at_the_end_is_left_out_of_the_head(ending: list[nn.Module]) -> None:
    """Guards a bug: BP was trained with cross-entropy on probabilities, and lost half of its accuracy."""
    torch.manual_seed(0)
    network = read_network(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), *ending), 5, IMAGES)
    assert any("softmax at the end is left out" in note for note in network.notes)
    assert network.head is not None
    x = torch.randn(3, 8)
    linear = next(one for block in ending for one in block.modules() if isinstance(one, nn.Linear))
    torch.testing.assert_close(network.head(x), linear(x))
    assert any(isinstance(one, nn.Softmax) for block in ending for one in block.modules()), (
        "the user's own is as it was"
    )


def test_a_logarithm_of_a_softmax_stays() -> None:
    network = read_network(nn.Sequential(*small_cnn(), nn.LogSoftmax(1)), 5, IMAGES)
    assert network.head is not None
    assert isinstance(network.head[-1], nn.LogSoftmax)


def test_a_block_that_forgets_to_return_is_named() -> None:
    class Forgets(nn.Module):
        def forward(self, x: Tensor) -> None:
            torch.relu(x)

    with pytest.raises(ValueError, match=r"^block 'block_2' returns None; does its forward, of Forgets, end without a"):
        read_network([nn.Linear(4, 4), Forgets(), nn.Linear(4, 4)], 5, torch.randn(2, 4))


def test_labels_in_the_example_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match="the first block gets the example: an input alone, without labels"):
        read_network([nn.Linear(4, 4), nn.Linear(4, 5)], 5, (torch.randn(2, 4), torch.zeros(2)))


def test_the_user_s_modules_are_left_alone_unless_they_are_given_away() -> None:
    net = small_cnn()
    before = copy.deepcopy(net.state_dict())
    network = read_network(net, 5, IMAGES)
    assert net[2].inplace
    assert isinstance(net[7], nn.Dropout)
    assert net.training
    assert all(torch.equal(one, net.state_dict()[name]) for name, one in before.items())
    assert network.layers["block_7"] is not net[6]
    taken = read_network(net, 5, IMAGES, copied=False)
    assert taken.layers["block_7"] is net[6]
    assert not net[2].inplace


def test_work_is_counted_and_divided_evenly() -> None:
    """In floating-point operations, so that the cut is the same everywhere."""
    net = small_cnn()
    alone = read_network(net, 5, IMAGES, layers=1)
    assert list(alone.layers) == ["block_1-block_7"]
    two = read_network(net, 5, IMAGES, layers=2)
    first = 2 * 2 * 64 * 3 * 9 * 4  # two per multiplication, for 2 images of 8 x 8
    second, third = 2 * 2 * 64 * 4 * 9 * 8, 2 * 2 * 16 * 8 * 9 * 8
    assert list(two.flops.values()) == [first + second, third]
    assert list(two.layers) == ["block_1-block_6", "block_7"]
    assert sum(alone.flops.values()) == first + second + third


@pytest.mark.parametrize("layers", [0, 4, 9, [4, 4], [7, 0], [8], 2.0, [1.5, 5.5], "2"])
def test_layers_that_do_not_fit_are_refused(layers: Any) -> None:
    with pytest.raises(ValueError, match=r"^layers: got .*; expected"):
        read_network(small_cnn(), 5, IMAGES, layers)


def test_layers_may_be_given_by_their_blocks() -> None:
    network = read_network(small_cnn(), 5, IMAGES, [3, 1, 3])
    assert [len(blocks) for blocks in network.blocks.values()] == [3, 1, 3]


def test_recurrent_blocks_are_counted_and_hand_on_their_output_alone() -> None:
    net = [nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 2)]
    network = read_network(net, 2, torch.randn(3, 5, 4))
    weights = [sum(one.numel() for one in lstm.parameters()) for lstm in net[:2]]
    assert list(network.flops.values()) == [2 * 15 * one for one in weights]
    assert network.outputs["block_2"].shape == (3, 5, 6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_equal_attention_layers_have_equal_work_though_torch_has_a_faster_way_for_them(norm_first: bool) -> None:
    layers = [
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first) for _ in range(4)
    ]
    network = read_network([nn.Embedding(20, 8), *layers], 2, torch.ones(2, 6, dtype=torch.int64), layers=2)
    assert [len(blocks) for blocks in network.blocks.values()] == [3, 2], "the embedding has no products"
    first, second = network.flops.values()
    # Per token: queries, keys, values and output 4 x 8 x 8, attention 2 x 6 x 8, and the two linear maps 2 x 8 x 16.
    assert first == second == 2 * 2 * (2 * 6) * (4 * 8 * 8 + 2 * 6 * 8 + 2 * 8 * 16)
    assert torch.backends.mha.get_fastpath_enabled()


class Masked(nn.Module):
    """Takes tokens and a mask, and returns tokens alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        assert attention_mask is not None
        return self.linear(hidden_states) * attention_mask[..., None]  # type: ignore[no-any-return]


class Pair(Masked):
    """Returns a tuple of one, as many libraries do."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Any:
        return (super().forward(hidden_states, attention_mask),)


def test_a_mask_that_a_block_does_not_return_is_handed_on() -> None:
    tokens, mask = torch.randn(2, 3, 4), torch.ones(2, 3)
    for block in (Masked(), Pair()):
        called = Called(block)
        out = called((tokens, mask))
        assert torch.equal(out[1], mask)
        assert torch.equal(out[0], block.linear(tokens))
        by_key = called({"hidden_states": tokens, "attention_mask": mask})
        assert list(by_key) == ["hidden_states", "attention_mask"]
        assert torch.equal(by_key["hidden_states"], out[0])


def test_a_network_of_linear_maps_keeps_all_but_the_last() -> None:
    network = read_network([nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)], 3, torch.randn(2, 4))
    assert list(network.layers) == ["block_1-block_2"]
    alone = read_network([nn.Linear(4, 3)], 3, torch.randn(2, 4))
    assert list(alone.layers) == ["block_1"]
    assert alone.head is None
    other = read_network([nn.Linear(4, 8), nn.Linear(8, 4)], 3, torch.randn(2, 4))
    assert other.head is None, "it maps to other classes"


def test_a_module_that_is_called_twice_is_called_twice() -> None:
    act = nn.ReLU()
    network = read_network(nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act), 3, torch.randn(2, 4))
    assert list(network.blocks.values()) == [("block_1", "block_2"), ("block_3", "block_4")]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


def test_a_block_with_a_forward_of_its_own_is_no_head() -> None:
    network = read_network([nn.Linear(4, 3), Residual(3)], 3, torch.randn(2, 4))
    assert (list(network.layers), network.head) == (["block_1", "block_2"], None)


@pytest.mark.parametrize("behind", [nn.LogSoftmax(1), nn.Identity(), nn.Flatten(), nn.Dropout(0.1)])
def test_a_head_may_have_something_behind_it_and_be_a_row_itself(behind: nn.Module) -> None:
    for tail in ([nn.Linear(8, 3), behind], [nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(8, 3)), behind)]):
        network = read_network([nn.Linear(4, 8), *tail], 3, torch.randn(2, 4))
        assert list(network.layers) == ["block_1"]
        assert network.head is not None


def test_the_example_stays_and_an_ordered_dict_is_a_dict() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            x += 1.0
            return OrderedDict(x=x, y=2 * x)

    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            return x + y

    example = torch.zeros(2, 4)
    network = read_network([Two(), Sum()], 3, example)
    assert torch.equal(example, torch.zeros(2, 4))
    assert torch.equal(network.outputs["block_1-block_2"]["x"], torch.full((2, 4), 3.0))


def test_blocks_in_evaluation_mode_are_told() -> None:
    network = read_network(small_cnn().eval(), 5, IMAGES)
    assert "in evaluation mode" in network.notes[-1]


def test_names_are_those_of_the_blocks() -> None:
    network = read_network({"stem.a": nn.Linear(4, 4), "body": nn.Linear(4, 4)}, 3, torch.randn(2, 4))
    assert list(network.layers) == ["stem_a", "body"]


@pytest.mark.parametrize(
    ("blocks", "error", "words"),
    [
        (nn.Linear(4, 4), TypeError, "blocks: got a Linear, whose forward says in what order"),
        ([], ValueError, "blocks: got none"),
        (type("Own", (nn.Sequential,), {"forward": lambda self, x: x})(nn.Linear(4, 4)), TypeError, "got a Own, whose"),
        ({"type": nn.Linear(4, 4)}, ValueError, "blocks: 'type' is a name of nn.Module's own"),
        ({"a": nn.Linear(4, 4), "head": nn.Linear(4, 4)}, ValueError, "blocks: 'head' is no head"),
        ([nn.Linear(4, 4), nn.Flatten(0)], ValueError, r"block 'block_2' returns float32 \(8,\) for 2 samples"),
        ([nn.Linear(4, 4), torch.relu], TypeError, "blocks: number 2 is an object of type builtin_function"),
        (3, TypeError, "blocks: got an object of type int"),
        ({"a.b": nn.Linear(4, 4), "a_b": nn.Linear(4, 4)}, ValueError, "blocks: two have the same name"),
        (
            [nn.Linear(4, 4), nn.Linear(5, 4)],
            ValueError,
            r"block 'block_2' does not take what it gets, float32 \(2, 4\)",
        ),
    ],
)
def test_what_is_no_row_of_blocks_is_refused(blocks: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_network(blocks, 3, torch.randn(2, 4))


def test_dropout_draws_from_a_stream_of_its_layer() -> None:
    network = read_network([nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 4)], 3, torch.randn(2, 4))
    assert any(isinstance(one, Dropout) for one in network.layers["block_1"].modules())
