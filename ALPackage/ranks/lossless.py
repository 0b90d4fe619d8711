"""The same numbers in fewer bytes, for slow connections: what is uneven in their bytes is coded, and nothing is lost.

Of floating-point numbers that a layer hands on, the signs and exponents lie close together, and a rectifier leaves
zeros; the rest is noise. So the bytes are sorted by their place, the first of all numbers, the second of all, and so
on; each of these planes is Huffman coded if that makes it smaller. Half-width VGG's float32 take 0.80 of their bytes,
what follows a rectifier without pooling about half.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

#: Smaller tensors are not worth the work.
SMALLEST = 2**14
#: How many bytes of a plane, spread over it, show whether to code it.
SAMPLE = 2**15
#: A coded plane is at most this share of its size; else it is sent as it is.
WORTHWHILE = 0.95
#: zlib without header and checksum.
RAW = -15
#: zlib's highest level of memory: the larger its blocks, the fewer tables of codes.
MEMORY = 9


def encode(values: Tensor, itemsize: int) -> list[Tensor]:
    """Return the planes of numbers, first byte first; one with fewer bytes than there are numbers is coded.

    `values`: the bytes of the numbers, uint8 (N * itemsize,) on the CPU.
    """
    by_place = values.view(-1, itemsize)
    return [_coded(by_place[:, place].contiguous()) for place in range(itemsize)]


def decode(planes: Sequence[Tensor], count: int) -> Tensor:
    """Return the bytes of `count` numbers, uint8 (count * itemsize,). Raises RuntimeError for a broken plane."""
    by_place = torch.empty(count, len(planes), dtype=torch.uint8)
    for place, plane in enumerate(planes):
        by_place[:, place] = plane if len(plane) == count else _decoded(plane, count)
    return by_place.view(-1)


def _coded(plane: Tensor) -> Tensor:
    sample = plane[:: max(1, len(plane) // SAMPLE)].contiguous()
    if len(_huffman(sample)) > WORTHWHILE * len(sample):
        return plane
    coded = _huffman(plane)
    return torch.frombuffer(bytearray(coded), dtype=torch.uint8) if len(coded) < len(plane) else plane


def _huffman(plane: Tensor) -> bytes:
    # Huffman codes alone: looking for repetitions takes longer, and makes these planes larger.
    coder = zlib.compressobj(1, zlib.DEFLATED, RAW, MEMORY, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(plane.numpy().data) + coder.flush()


def _decoded(plane: Tensor, count: int) -> Tensor:
    coder = zlib.decompressobj(RAW)
    try:
        found = coder.decompress(plane.numpy().data, count)  # never more than that, whatever has arrived
    except zlib.error as error:
        raise RuntimeError(f"a coded tensor is broken: {error}") from error
    if len(found) != count:
        raise RuntimeError(f"a coded tensor has {len(found)} bytes where {count} belong")
    return torch.frombuffer(bytearray(found), dtype=torch.uint8)
