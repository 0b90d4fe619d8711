"""Derived random streams: golden seeds, dropout's numbers, and modules that would share a stream."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ALPackage.randomness import Dropout, derive_seed, enter_stream, generator, refuse_shared_randomness


@pytest.mark.parametrize(
    ("coordinates", "seed"),
    [
        ((0,), 6711488920161924273),
        ((0, "layer_1", 0), 4683925451115436237),
        ((7, "conv_2", 123), 8476870261824367341),
        (("0",), 7229554788928137032),
    ],
)
def test_seeds_are_the_same_in_every_version(coordinates: tuple[int | str, ...], seed: int) -> None:
    assert derive_seed(*coordinates) == seed


@given(st.lists(st.one_of(st.integers(), st.text(alphabet="abc019 -_."))))
def test_a_seed_is_one_that_every_generator_takes(coordinates: list[int | str]) -> None:
    seed = derive_seed(*coordinates)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_other_coordinates_give_another_seed() -> None:
    names = [f"layer_{i}" for i in range(1, 9)]
    seeds = [derive_seed(*c) for c in product(range(5), names, range(200))]
    assert len(set(seeds)) == len(seeds)
    alike = [(1, 23), (12, 3), (123,), ("1", 23), (1, "23"), ("123",), (1, 2, 3), (3, 2, 1), (), ("",), ("", "")]
    assert len({derive_seed(*c) for c in alike}) == len(alike)


def test_generators_are_fresh_and_leave_the_process_wide_one_alone() -> None:
    before = torch.get_rng_state()
    one, two = generator(1, "a"), generator(1, "a")
    assert torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=two))
    assert not torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=generator(1, "a")))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_zeroes_a_share_and_scales_the_rest() -> None:
    drop = Dropout(0.3)
    out = drop(torch.ones(200, 500))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)


def test_dropout_gives_the_gradient_its_mask() -> None:
    x = torch.ones(50, 50, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # type: ignore[arg-type]


def test_dropout_does_nothing_in_evaluation_or_at_zero() -> None:
    x = torch.randn(4, 4)
    assert torch.equal(Dropout(0.9).eval()(x), x)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_keeps_the_input_and_the_dtype() -> None:
    x = torch.ones(64, dtype=torch.float64)
    out = Dropout(0.5)(x)
    assert out.dtype == torch.float64
    assert x.eq(1).all()


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        Dropout(p)


def network() -> nn.Sequential:
    """Return two dropouts around a linear map."""
    return nn.Sequential(Dropout(0.5), nn.Linear(16, 16), nn.Sequential(nn.ReLU(), Dropout(0.2)))


def test_a_stream_gives_the_same_masks_whatever_was_drawn_before() -> None:
    net, x = network(), torch.ones(8, 16)
    enter_stream(net, 1, "layer", 5)
    first = net(x)
    torch.rand(10)
    net(x)
    state = torch.get_rng_state()
    enter_stream(net, 1, "layer", 5)
    assert torch.equal(net(x), first)
    assert torch.equal(torch.get_rng_state(), state), "a module in its own stream drew from the process-wide one"
    enter_stream(net, 1, "layer", 6)
    assert not torch.equal(net(x), first)


def test_two_dropouts_in_one_layer_draw_different_masks() -> None:
    net = nn.Sequential(Dropout(0.5), Dropout(0.5))
    enter_stream(net, 0)
    x = torch.ones(4000)
    assert (net(x) != 0).float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_entering_a_stream_without_dropout_or_parameters_is_fine() -> None:
    enter_stream(nn.Linear(2, 2), 0)
    bare = Dropout(0.5)
    enter_stream(bare, 3)
    first = bare(torch.ones(100))
    enter_stream(bare, 3)
    assert torch.equal(bare(torch.ones(100)), first)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_module_in_a_stream_can_be_copied(way: str) -> None:
    net = network()
    enter_stream(net, 4)
    twin = copy.deepcopy(net) if way == "deepcopy" else pickle.loads(pickle.dumps(net))
    assert twin[0].stream is None, "older versions of torch can copy no generator"
    x = torch.ones(8, 16)
    enter_stream(net, 9)
    enter_stream(twin, 9)
    assert torch.equal(net(x), twin(x))
    net(x)  # must not advance the twin's stream
    enter_stream(net, 9)
    net(x)
    assert torch.equal(net(x), twin(x))
    assert twin[0].p == 0.5


RANDOM = {
    "Dropout": nn.Dropout(0.1),
    "Dropout2d": nn.Dropout2d(0.1),
    "AlphaDropout": nn.AlphaDropout(0.1),
    "LSTM": nn.LSTM(2, 2, num_layers=2, dropout=0.1),
    "GRU": nn.GRU(2, 2, num_layers=2, dropout=0.1),
    "MultiheadAttention": nn.MultiheadAttention(2, 1, dropout=0.1),
    "TransformerEncoderLayer": nn.TransformerEncoderLayer(4, 1, dropout=0.1),
    "RReLU": nn.RReLU(),
    "FractionalMaxPool2d": nn.FractionalMaxPool2d(2, output_ratio=0.5),
}


@pytest.mark.parametrize("module", RANDOM.values(), ids=RANDOM.keys())
def test_modules_that_draw_from_the_process_wide_generator_are_refused(module: nn.Module) -> None:
    model = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(2, 2), module)})
    with pytest.raises(ValueError, match=r"deep\.1.*schedule=\"sequential\"") as caught:
        refuse_shared_randomness(model, "continuous")
    assert "\n" not in str(caught.value)
    if "Dropout" in type(module).__name__:
        assert "ALPackage.randomness.Dropout" in str(caught.value)


def test_modules_that_draw_nothing_pass() -> None:
    refuse_shared_randomness(
        nn.Sequential(
            Dropout(0.5),
            nn.Dropout(0.0),
            nn.LSTM(2, 2),
            nn.MultiheadAttention(2, 1),
            nn.TransformerEncoderLayer(4, 1, dropout=0.0),
            nn.RReLU(0.2, 0.2),
            nn.BatchNorm1d(2),
        ),
        "continuous",
    )
