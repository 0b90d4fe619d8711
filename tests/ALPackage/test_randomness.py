"""Derived random streams: golden seeds, dropout's numbers, and what `replace_dropout` replaces."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ALPackage.randomness import (
    Dropout,
    SliceDropout,
    derive_seed,
    enter_stream,
    generator,
    replace_dropout,
    share_rows,
)


@pytest.mark.parametrize("module", [Dropout(0.4), SliceDropout(0.4), SliceDropout(0.4, 1), SliceDropout(0.4, 0)])
@pytest.mark.parametrize("shape", [(7, 3, 5), (14, 3, 5), (7, 3, 4, 5)])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_rows_of_a_batch_drop_what_they_drop_in_all_of_it(module: Dropout, shape: tuple[int, ...], layout: str) -> None:
    """14 rows: two per row of the batch, as where positions are folded into dimension 0."""
    x = torch.randn(shape)
    if layout == "transposed":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    each = shape[0] // 7
    enter_stream(module, 3, "layer", 0)
    whole = module(x)
    parts = []
    for start, stop in ((0, 3), (3, 7)):
        enter_stream(module, 3, "layer", 0)
        share_rows([module], (start, stop, 7))
        part = x[each * start : each * stop]
        parts.append(module(part))
    share_rows([module], None)
    assert torch.equal(torch.cat(parts), whole)


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


# --- replace_dropout ------------------------------------------------------------------------------------------------


REPLACED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Dropout": (nn.Dropout(0.3), (6, 5)),
    "Dropout, channels last": (nn.Dropout(0.3), (6, 5, 4, 4)),
    "Dropout1d": (nn.Dropout1d(0.3), (6, 5, 4)),
    "Dropout1d, one sample": (nn.Dropout1d(0.3), (6, 5)),
    "Dropout2d": (nn.Dropout2d(0.3), (6, 5, 4, 4)),
    "Dropout3d": (nn.Dropout3d(0.3), (6, 5, 4, 4, 4)),
    "Dropout3d, one sample": (nn.Dropout3d(0.3), (6, 4, 4, 4)),
    "StochasticDepth of rows": (torchvision.ops.StochasticDepth(0.3, "row"), (6, 5, 4)),
    "StochasticDepth of the batch": (torchvision.ops.StochasticDepth(0.3, "batch"), (6, 5, 4)),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_replacement_computes_the_same_bit_for_bit(kind: str) -> None:
    module, shape = REPLACED[kind]
    new = replace_dropout(nn.Sequential(module))[0]
    assert isinstance(new, Dropout)
    x = torch.randn(shape)
    if "channels last" in kind:
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for one in (module, new):
        torch.manual_seed(11)
        grads = x.clone().requires_grad_()
        out = one(grads)
        out.backward(torch.ones_like(out))
        results.append((out.detach(), grads.grad, torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))  # type: ignore[arg-type]
    assert torch.equal(new.eval()(x), x)


def test_a_replacement_draws_from_its_own_stream() -> None:
    net = replace_dropout(nn.Sequential(nn.Dropout2d(0.5), nn.Linear(4, 4), nn.Dropout(0.5)))
    before = torch.get_rng_state()
    found = []
    for _ in range(2):
        enter_stream(net, 3, "layer", 1)
        found.append(net(torch.ones(6, 5, 4, 4)))
    assert torch.equal(*found)
    assert torch.equal(torch.get_rng_state(), before)


def test_everything_is_replaced_in_place_wherever_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    shared = nn.Dropout(0.2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = shared
            self.again = shared
            self.deep = nn.ModuleDict(
                {"blocks": nn.ModuleList([nn.Linear(2, 2), nn.Dropout(0.4, inplace=True).eval()])}
            )
            self.off = nn.Dropout(0.0)
            self.nothing = None
            self.register_module("none", None)

    net = Net()
    with caplog.at_level("INFO", logger="ALPackage.randomness"):
        assert replace_dropout(net) is net
    inner = net.deep["blocks"][1]  # type: ignore[index]
    assert [type(one) for one in (net.first, net.again, inner, net.off)] == [Dropout] * 4
    assert [one.p for one in (net.first, net.again, inner, net.off)] == [0.2, 0.2, 0.4, 0.0]
    assert net.first is not net.again, "two layers that shared it could not be trained apart"
    assert net.first.training
    assert not inner.training
    assert "replaced first (Dropout), again (Dropout), off (Dropout), deep.blocks.1 (Dropout)" in caplog.text
    assert type(replace_dropout(nn.Dropout(0.1))) is Dropout


def test_what_cannot_be_replaced_exactly_is_left_and_named() -> None:
    class Own(nn.Dropout):
        pass

    left = {
        "alpha": nn.AlphaDropout(0.1),
        "own": Own(0.1),
        "lstm": nn.LSTM(2, 2, num_layers=2, dropout=0.1),
        "attention": nn.MultiheadAttention(2, 1, dropout=0.1),
    }
    quiet = {"one": nn.LSTM(2, 2), "calm": nn.MultiheadAttention(2, 1), "all": nn.Dropout(1.0)}
    model = nn.ModuleDict({**left, **quiet})
    with pytest.warns(UserWarning, match='schedule="sequential"') as caught:
        replace_dropout(model)
    assert len(caught) == 1
    words = str(caught[0].message)
    assert all(f"{name} ({type(module).__name__})" in words for name, module in left.items())
    assert not any(f"{name} (" in words for name in quiet)
    assert all(model[name] is module for name, module in [*left.items(), *quiet.items()])


def test_timms_drop_path_is_known_by_its_name() -> None:
    def made(keeps_scale: bool) -> nn.Module:
        kind = type("DropPath", (nn.Module,), {"__module__": "timm.layers.drop"})
        one = kind()
        one.drop_prob, one.scale_by_keep = 0.25, keeps_scale
        return one

    new = replace_dropout(nn.Sequential(made(True)))[0]
    assert isinstance(new, SliceDropout)
    assert (new.p, new.leading) == (0.25, 1)
    torch.manual_seed(4)
    x, keep = torch.randn(6, 5, 4), torch.empty(6, 1, 1)
    torch.manual_seed(5)
    out = new(x)
    torch.manual_seed(5)
    assert torch.equal(out, x * keep.bernoulli_(0.75).div_(0.75))
    assert not isinstance(replace_dropout(nn.Sequential(made(False)))[0], Dropout)


def test_slices_are_dropped_as_a_whole() -> None:
    out = SliceDropout(0.5, 2)(torch.ones(50, 40, 3, 3))
    share = (out.flatten(2) != 0).float().mean(2)
    assert share.unique().tolist() == [0.0, 1.0]
    assert share.mean().item() == pytest.approx(0.5, abs=0.05)
    assert repr(SliceDropout(0.5, 1)) == "SliceDropout(p=0.5, leading=1)"


@pytest.mark.parametrize("drop", [Dropout(0.4), SliceDropout(0.4, 2), SliceDropout(0.4, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rows_of_a_batch_get_the_numbers_that_they_have_in_it(drop: Dropout, layout: torch.memory_format) -> None:
    """Such as those of one of several processes that share a batch."""
    layer, x = nn.Sequential(drop), torch.ones(7, 3, 4, 4).to(memory_format=layout)
    enter_stream(layer, 1, "a", 2)
    whole = layer(x)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        share_rows([drop], (start, stop, 7))
        enter_stream(layer, 1, "a", 2)
        assert torch.equal(layer(x[start:stop]), whole[start:stop])
    share_rows([drop], None)
    enter_stream(layer, 1, "a", 2)
    assert torch.equal(layer(x), whole)
