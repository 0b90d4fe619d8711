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
    assert (chain.order, chain.own, chain.stage, chain.leads) == ([0, 2, 1], [1, 2], 1, False)
    assert chain.edges == [(0, 2), (2, 1)]
    first, last = make_chain(4, [0, 2, 2, 1], 3, 0), make_chain(4, [0, 2, 2, 1], 3, 1)
    assert (first.leads, last.leads, last.own) == (True, False, [3])


def test_replicas_have_the_same_layers_and_send_to_whom_they_have_rows_in_common_with() -> None:
    chains = [make_chain(4, [0, 2, 2, 4], 7, rank, [2, 2, 3]) for rank in range(7)]
    assert [chain.own for chain in chains] == [[0], [0], [1, 2], [1, 2], [3], [3], [3]]
    assert [chain.replica for chain in chains] == [0, 1, 0, 1, 0, 1, 2]
    assert [chain.group for chain in chains][::2] == [(0, 1), (2, 3), (4, 5, 6), (4, 5, 6)]
    assert [chain.leads for chain in chains] == [True, *[False] * 6]
    assert chains[0].edges == [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (3, 6)]
    assert make_chain(4, None, 4, 0, [2, 1, 1]).ranks == (0, 0, 2, 3)


@pytest.mark.parametrize(
    ("ranks", "replicas", "words"),
    [
        (None, [2, 1], "stage_replicas: got 2, 1, which is 3 ranks; expected numbers of at least 1 that make 4"),
        (None, [4, 0], "stage_replicas: got 4, 0"),
        (None, [1, 1, 1, 1], "4 stages for 3 layers"),
        ([0, 1, 1], [2, 2], "the stages begin with the ranks 0, 2, in this order"),
        (None, None, r'"stage_replicas": \[2, 1, 1\]'),
    ],
)
def test_replicas_that_do_not_fit_are_refused(ranks: list[int] | None, replicas: list[int] | None, words: str) -> None:
    with pytest.raises(PlacementError, match=words):
        make_chain(3, ranks, 4, 0, replicas)


@pytest.mark.parametrize(
    ("ranks", "world", "words"),
    [
        (
            None,
            4,
            "there are 4 of them for 3 layers, and a layer cannot be divided; start at most 3",
        ),
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
