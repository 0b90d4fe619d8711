"""A layer that is made without values gets memory, and what a rank gives back is not held by anything else."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC
from ALPackage.ranks.chain import make_chain
from ALPackage.ranks.report import weights_of
from ALPackage.ranks.states import decoder_state, give_memory, has_values, load_layer, release, states_elsewhere
from tests.allocated import Allocated
from tests.ALPackage.schedules.test_schedules import MODELS, build


def without_values(model: str) -> nn.Module:
    with torch.device("meta"):
        return build(model)


@pytest.mark.parametrize("model", MODELS)
def test_a_layer_without_values_becomes_the_layer_that_rank_0_has(model: str) -> None:
    """Values, kinds, strides, names, what is one weight under two names, and what the optimizer holds."""
    for name, layer in without_values(model).items():
        expected = dict(build(model).items())[name]
        assert not has_values(layer)
        with Allocated() as allocated:
            give_memory(name, layer)
        assert allocated.bytes == weights_of([(name, layer)]) > 0
        state = {"layer": expected.state_dict(), "optimizer": expected.optimizer.state_dict()}
        load_layer(layer, state)
        kinds = []
        for one in (layer, expected):
            tensors = {**dict(one.named_parameters()), **dict(one.named_buffers())}
            kinds.append({path: (t.dtype, t.stride(), t.requires_grad, t.is_leaf) for path, t in tensors.items()})
            assert all(isinstance(t, nn.Parameter) for t in one.parameters())
        assert kinds[0] == kinds[1]
        assert all(map(torch.equal, layer.state_dict().values(), expected.state_dict().values()))
        held = [[list(map(id, group["params"])) for group in layer.optimizer.param_groups]]
        assert held == [[[id(one) for one in side.parameters()] for side in (layer.enc, layer.ae)]]
        options = [
            [{key: value for key, value in group.items() if key != "params"} for group in one.optimizer.param_groups]
            for one in (layer, expected)
        ]
        assert options[0] == options[1]


def test_a_layer_without_values_gets_its_memory_where_it_has_been_assigned_to() -> None:
    stack = without_values("vgg")
    stack.set_device(["cpu:1", "cpu", "cpu", "cpu"])
    assert not any(map(has_values, stack)), "nothing has been moved"
    for name, layer in stack.items():
        give_memory(name, layer)
    assert stack.placement == [torch.device("cpu", 1), *[torch.device("cpu")] * 3]
    assert stack.devices == [torch.device("cpu")] * 4


def test_all_buffers_come_from_rank_0() -> None:
    """Also one that no checkpoint has, whatever its size."""
    f = nn.Linear(4, 8)
    layer = AL(ENC(f, nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
    f.register_buffer("seen", torch.arange(5.0), persistent=False)
    with torch.device("meta"):
        other = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        other.enc.f.register_buffer("seen", torch.zeros(2), persistent=False)
    give_memory("one", other)
    stack = build("convolutions")
    stack.append(layer, "one")
    sent = states_elsewhere(stack, make_chain(4, [0, 0, 0, 1], 2, 0))
    load_layer(other, sent["one"])
    assert torch.equal(other.enc.f.seen, torch.arange(5.0))
    assert "enc.f.seen" not in other.state_dict()
    f.seen.zero_()
    assert other.enc.f.seen.sum() == 10, "a copy"


def test_a_tensor_that_rank_0_would_not_send_is_refused() -> None:
    with torch.device("meta"):
        layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        layer.enc.f.scale = torch.ones(3)
    with pytest.raises(ValueError, match=r"layer 'one': enc\.f\.scale is on the device meta, but neither a parameter"):
        give_memory("one", layer)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("model", MODELS)
def test_what_a_rank_gives_back_is_gone(model: str, rank: int) -> None:
    """Guards a bug: an nn.LSTM held its weights in a list of its own."""
    stack = build(model)
    cut = [0, *[1] * (len(stack) - 1)]
    layers = [layer for layer, where in zip(stack, cut, strict=True) if where != rank]
    kept = {id(one) for layer in layers for _, one in decoder_state(layer)} if rank == 0 else set()
    given = [
        weakref.ref(one) for layer in layers for one in (*layer.parameters(), *layer.buffers()) if id(one) not in kept
    ]
    release(stack, make_chain(len(stack), cut, 2, rank))
    gc.collect()
    assert given
    assert [one() for one in given if one() is not None] == []
