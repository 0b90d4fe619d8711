"""Coded tensors: every bit comes back, in fewer bytes where there is something to save, and never in more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ALPackage.ranks.lossless import SMALLEST, decode, encode
from ALPackage.ranks.wire import pack, part_sizes, unpack

COUNT = 40_000
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 3.4e38]


def bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def share(tensor: Tensor) -> float:
    """Return what share of its bytes a tensor takes when it is coded, after making sure that it comes back."""
    planes = encode(bytes_of(tensor), tensor.itemsize)
    assert torch.equal(decode(planes, tensor.numel()), bytes_of(tensor))
    return sum(map(len, planes)) / tensor.nbytes


@pytest.fixture
def normal() -> Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_exponents_are_coded_and_noise_is_left(normal: Tensor, dtype: torch.dtype) -> None:
    """Of what is normally distributed, sign and exponent take up to a byte less; the rest has nothing to save."""
    saved = (1 - share(normal.to(dtype))) * dtype.itemsize
    assert 0.2 < saved < 1.0, "bytes per number"


def test_zeros_and_small_integers_take_a_part_of_their_bytes(normal: Tensor) -> None:
    assert share(normal.float().relu()) < 0.6, "half of the numbers are zero, the others have no sign"
    assert share(torch.zeros(COUNT)) < 0.13, "a bit per byte is the least of a Huffman code"
    assert share((normal.abs() * 1000).long()) < 0.4


def test_what_cannot_be_coded_is_sent_as_it_is() -> None:
    noise = torch.randint(256, (4 * COUNT,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert share(noise) == 1.0
    assert share(noise.view(torch.int32)) == 1.0


def test_every_bit_comes_back() -> None:
    """Signs of zeros, infinities, what is below the normal range, and the bits that a NaN carries."""
    numbers = torch.tensor(SPECIAL).repeat(COUNT // len(SPECIAL))
    numbers.view(torch.int32)[4] = 0x7FC0_1234
    assert share(numbers) < 1.0


def test_large_tensors_of_a_structure_are_coded_and_keep_their_strides(normal: Tensor) -> None:
    normal = normal.float()
    tree = {"large": normal.view(200, 200).t(), "gaps": normal.view(2, -1)[:, ::2], "small": torch.ones(3), "n": 1}
    packed, plain = pack(tree, coded=True), pack(tree)
    assert part_sizes(packed.description) == [len(part) for part in packed.parts]
    assert packed.size < 0.9 * plain.size
    found = unpack(packed.description, packed.parts)
    for name in ("large", "gaps", "small"):
        assert torch.equal(found[name], tree[name])  # type: ignore[arg-type]
        assert found[name].stride() == tree[name].stride()  # type: ignore[union-attr]
    assert found["n"] == 1
    small = torch.zeros(SMALLEST // 4 - 1)
    assert pack(small, coded=True).description == pack(small).description


@pytest.mark.parametrize("change", ["cut off", "other bytes", "of fewer numbers"])
def test_a_broken_plane_is_an_error(change: str) -> None:
    [*planes, last] = encode(bytes_of(torch.ones(COUNT)), 4)
    if change == "cut off":
        last = last[: len(last) // 2]
    elif change == "other bytes":
        last = torch.full_like(last, 0xFF)
    else:
        last = encode(torch.zeros(COUNT // 2, dtype=torch.uint8), 1)[0]
    with pytest.raises(RuntimeError, match="a coded tensor"):
        decode([*planes, last], COUNT)
