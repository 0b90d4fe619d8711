"""Which rank has which layers, and what becomes of the memory of those that it does not have."""

from __future__ import annotations

import pytest
import torch

from ALPackage import PlacementError
from ALPackage.ranks.chain import make_chain
from ALPackage.ranks.states import decoder_state, release
from tests.ALPackage.schedules.test_schedules import build


@pytest.mark.parametrize(
    ("layers", "world", "expected"),
    [(4, 1, [0, 0, 0, 0]), (4, 2, [0, 0, 1, 1]), (5, 2, [0, 0, 0, 1, 1]), (5, 3, [0, 0, 1, 1, 2]), (3, 3, [0, 1, 2])],
)
def test_by_default_neighbors_in_nearly_equal_numbers(layers: int, world: int, expected: list[int]) -> None:
    assert list(make_chain(layers, None, world, 0).ranks) == expected


def test_the_chain_is_in_the_order_of_the_layers() -> None:
    chain = make_chain(4, [0, 2, 2, 1], 3, 2)
    assert (chain.order, chain.own, chain.before, chain.after, chain.leads) == ([0, 2, 1], [1, 2], 0, 1, False)
    first, last = make_chain(4, [0, 2, 2, 1], 3, 0), make_chain(4, [0, 2, 2, 1], 3, 1)
    assert (first.before, first.after, first.leads) == (None, 2, True)
    assert (last.before, last.after, last.own) == (2, None, [3])


@pytest.mark.parametrize(
    ("ranks", "world", "words"),
    [
        (None, 4, "there are 4 of them for 3 layers, and a layer cannot be divided; start at most 3 processes"),
        ([0, 1], 2, "the list has 2 entries but the model has 3 layers"),
        ([0, 0, 0], 2, r"got 0, 0, 0; expected each of the 2 ranks \(0 to 1\) to have a layer"),
        ([0, 1, 5], 3, "expected each of the 3 ranks"),
        ([0, 1, 0], 2, "got 0, 1, 0; the layers of a rank have to be neighbors"),
        ([1, 1, 0], 2, "rank 0 reads the batches, so it needs the first layer"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(ranks: list[int] | None, world: int, words: str) -> None:
    with pytest.raises(PlacementError, match=words):
        make_chain(3, ranks, world, 0)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("model", ["vgg", "transformer", "convolutions"])
def test_the_layers_of_others_take_no_memory(model: str, rank: int) -> None:
    """Rank 0 keeps the decoders of the others alone."""
    stack = build(model)
    cut = [0, *[1] * (len(stack) - 1)]
    whole = {name: sum(one.nbytes for one in layer.state_dict().values()) for name, layer in stack.items()}
    decoders = {name: sum(one.nbytes for _, one in decoder_state(layer)) for name, layer in stack.items()}
    release(stack, make_chain(len(stack), cut, 2, rank))
    for (name, layer), one in zip(stack.items(), cut, strict=True):
        left = sum(state.nbytes for state in layer.state_dict().values() if not state.is_meta)
        held = sum(
            weight.nbytes for group in layer.optimizer.param_groups for weight in group["params"] if not weight.is_meta
        )
        if one == rank:
            assert left == whole[name]
            continue
        assert left == (decoders[name] if rank == 0 else 0)
        assert held <= left, "the optimizer holds the weights"
        assert decoders[name] < whole[name] / 2
    stack.refuse_shared_state()
    assert all(isinstance(one, torch.nn.Parameter) for one in stack.parameters())
