"""Nested tensors as bytes: the same structure, values, dtypes and strides come out, and nothing is unpickled."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves, tree_structure

from ALPackage.errors import LayerError
from ALPackage.ranks.wire import pack, part_sizes, unpack

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]


def through(tree: Any) -> Any:
    packed = pack(tree)
    assert part_sizes(packed.description) == [part.numel() for part in packed.parts]
    return unpack(packed.description, [part.clone() for part in packed.parts])


def assert_same(found: Any, expected: Any) -> None:
    assert tree_structure(found) == tree_structure(expected)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        if not isinstance(other, torch.Tensor):
            assert one == other
            assert type(one) is type(other)
            continue
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert torch.equal(one, other)


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from(DTYPES),
    st.sampled_from(["plain", "permuted", "sliced", "expanded", "row of a larger one"]),
)
def test_a_tensor_arrives_with_its_strides(shape: list[int], random: Any, dtype: torch.dtype, how: str) -> None:
    count = 1
    for length in shape:
        count *= length
    tensor = (torch.arange(count) % 2 if dtype == torch.bool else torch.arange(count)).to(dtype).view(shape)
    if how == "permuted":
        tensor = tensor.permute(random.sample(range(len(shape)), len(shape)))
    elif how == "sliced" and shape:
        tensor = tensor[..., ::2]
    elif how == "expanded":
        tensor = tensor[None].expand(3, *shape)
    elif how == "row of a larger one":
        tensor = torch.stack([tensor, tensor])[1]
    assert_same(through(tensor), tensor)


def test_what_lies_between_the_elements_and_what_is_repeated_is_not_sent() -> None:
    assert pack(torch.zeros(4, 8)[:, :2]).size == 4 * 2 * 4
    assert pack(torch.zeros(1, 8).expand(100, 8)).size == 8 * 4


def test_a_whole_structure_arrives() -> None:
    tree = {
        "x": (torch.randn(2, 3), [torch.tensor(5), None]),
        3: {"deep": (1, 2.5, True, "word", float("inf"))},
        None: OrderedDict(a=torch.zeros(0, 2)),
    }
    found = through(tree)
    tree[None] = dict(tree[None])  # type: ignore[call-overload]
    assert list(found) == list(tree), "the order of a dict counts"
    assert_same(found, tree)


def test_the_description_changes_with_the_shapes_and_not_with_the_values() -> None:
    one, same, other = (pack((torch.zeros(2), 1)), pack((torch.ones(2), 1)), pack((torch.zeros(3), 1)))
    assert (one.description, one.digest) == (same.description, same.digest)
    assert one.digest != other.digest


def test_a_view_shares_its_memory_with_what_is_sent() -> None:
    tensor = torch.randn(3, 4).t()
    assert pack(tensor).parts[0].data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (object(), "object cannot be sent to another process; hand on tuples, lists and dicts of tensors"),
        ({(1, 2): torch.zeros(1)}, "a dict with the keys .* cannot be sent"),
        (torch.zeros(2, 2).to_sparse(), "a torch.sparse_coo tensor cannot be sent"),
        (torch.zeros(2, device="meta"), "a meta tensor cannot be sent"),
        ({1, 2}, "set cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_refused(tree: Any, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        pack(tree)
