"""How a nested structure of tensors is written as bytes that another process reads: nothing is pickled.

    structure --pack--> description (JSON) and the bytes of every tensor --unpack--> the same structure

The description holds the containers, the plain values, and each tensor's shape, dtype and strides. A tensor arrives
with the strides that it had, because kernels choose by them how they compute, and numbers would differ in their last
bits. What lies between its elements is not sent, nor is what it repeats. On request large tensors are coded, so that
they take fewer bytes (see `lossless`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..errors import LayerError
from .lossless import SMALLEST, decode, encode

#: Values that are part of the description.
PLAIN = (type(None), bool, int, float, str)
SEQUENCES: dict[type, str] = {tuple: "tuple", list: "list"}


@dataclass(frozen=True)
class Packed:
    """A structure as bytes.

    Attributes:
        description: JSON; equal for structures that differ in the tensors' values alone, if nothing is coded.
        parts: A flat uint8 tensor on the CPU for each tensor that is not empty, perhaps its own memory; of one that is
            coded, several.
    """

    description: bytes
    parts: list[Tensor]

    @property
    def digest(self) -> int:
        """A number of 63 bits that stands for the description."""
        return int.from_bytes(hashlib.blake2b(self.description, digest_size=8).digest(), "big") >> 1

    @property
    def size(self) -> int:
        """The bytes of the tensors."""
        return sum(part.numel() for part in self.parts)


def pack(tree: Any, *, coded: bool = False) -> Packed:
    """Write the structure as bytes. Raises LayerError for what cannot be sent to another process.

    `coded`: whether large tensors are coded to take fewer bytes.
    """
    parts: list[Tensor] = []
    node = _describe(tree, parts, coded)
    return Packed(json.dumps(node, separators=(",", ":")).encode(), parts)


def part_sizes(description: bytes) -> list[int]:
    """Return how many bytes each part has that belongs to the description."""
    sizes: list[int] = []
    _walk(json.loads(description), sizes)
    return [size for size in sizes if size]


def unpack(description: bytes, parts: Sequence[Tensor]) -> Any:
    """Return the structure that was packed; its tensors use the memory of `parts` where they can."""
    return _rebuild(json.loads(description), iter(parts))


def _describe(tree: Any, parts: list[Tensor], coded: bool) -> Any:
    if isinstance(tree, Tensor):
        return _describe_tensor(tree, parts, coded)
    kind = type(tree)
    if kind in PLAIN:
        return {"value": tree}
    if kind in SEQUENCES:
        return {SEQUENCES[kind]: [_describe(one, parts, coded) for one in tree]}
    if isinstance(tree, dict):  # an ordered one arrives as a plain one, which keeps the order too
        keys = list(tree)
        if any(type(key) not in PLAIN for key in keys):
            raise LayerError(f"a dict with the keys {keys[:5]} cannot be sent to another process; use words or numbers")
        return {"dict": [[key, _describe(one, parts, coded)] for key, one in tree.items()]}
    raise LayerError(
        f"{kind.__name__} cannot be sent to another process; hand on tuples, lists and dicts of tensors, numbers and "
        "words"
    )


def _describe_tensor(tensor: Tensor, parts: list[Tensor], coded: bool) -> dict[str, Any]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        what = "a quantized" if tensor.is_quantized else "a meta" if tensor.is_meta else f"a {tensor.layout}"
        raise LayerError(f"{what} tensor cannot be sent to another process; hand on a dense one")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    shape, strides = list(tensor.shape), list(tensor.stride())
    once = tensor
    for dimension, (length, stride) in enumerate(zip(shape, strides, strict=True)):
        if stride == 0 and length > 1:
            once = once.narrow(dimension, 0, 1)
    spacing = _spacing(once)
    if spacing == "none":
        flat = once.as_strided((once.numel(),), (1,))
    else:
        flat = once.contiguous().view(-1)
        if spacing == "overlapping":
            strides = list(once.contiguous().expand(shape).stride())
    described: dict[str, Any] = {"tensor": str(tensor.dtype).removeprefix("torch."), "shape": shape, "strides": strides}
    if spacing == "gaps":
        described["gaps"] = True
    if coded and flat.nbytes >= SMALLEST:
        planes = encode(_on_host(flat).view(torch.uint8), flat.itemsize)
        parts += planes
        described["planes"] = [len(plane) for plane in planes]
    elif flat.numel():
        parts.append(_on_host(flat).view(torch.uint8))
    return described


def _on_host(flat: Tensor) -> Tensor:
    """Return a tensor that lies in the host's memory; from a GPU it gets into pinned memory, which is faster."""
    if flat.device.type == "cpu":
        return flat
    # Torch keeps pinned memory that is given back, so a batch finds that of an earlier one.
    staged = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.device.type == "cuda")
    return staged.copy_(flat)


def _spacing(tensor: Tensor) -> str:
    """Return how the elements lie in memory: with "none" between them, in any order, with "gaps", or "overlapping"."""
    if not tensor.numel():
        return "none"
    expected, found = 1, "none"
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length == 1:
            continue
        if stride < expected:  # rows lie between each other's elements, or on them
            return "overlapping" if _overlaps(tensor) else "gaps"
        if stride > expected:
            found = "gaps"
        expected = stride * length
    return found


def _overlaps(tensor: Tensor) -> bool:
    """Return whether two elements of the tensor are the same memory."""
    places = torch.zeros(1, dtype=torch.int64)
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = (places[:, None] + torch.arange(length) * stride).flatten()
    return len(torch.unique(places)) < len(places)


def _once(node: dict[str, Any]) -> list[int]:
    """Return the shape of what was sent of a tensor: a dimension that it repeats counts once."""
    return [
        1 if stride == 0 and length > 1 else length
        for length, stride in zip(node["shape"], node["strides"], strict=True)
    ]


def _walk(node: dict[str, Any], sizes: list[int]) -> None:
    kind = next(iter(node))
    if kind == "tensor":
        size = prod(_once(node)) * getattr(torch, node["tensor"]).itemsize
        sizes += node.get("planes", [size])
    elif kind == "dict":
        for _, one in node["dict"]:
            _walk(one, sizes)
    elif kind != "value":
        for one in node[kind]:
            _walk(one, sizes)


def _rebuild(node: dict[str, Any], parts: Any) -> Any:
    kind = next(iter(node))
    if kind == "value":
        return node["value"]
    if kind == "tensor":
        return _rebuild_tensor(node, parts)
    if kind == "dict":
        return {key: _rebuild(one, parts) for key, one in node["dict"]}
    whole = [_rebuild(one, parts) for one in node[kind]]
    return tuple(whole) if kind == "tuple" else whole


def _rebuild_tensor(node: dict[str, Any], parts: Any) -> Tensor:
    dtype: torch.dtype = getattr(torch, node["tensor"])
    shape, strides, once = node["shape"], node["strides"], _once(node)
    if 0 in shape:
        return torch.empty(0, dtype=dtype).as_strided(shape, strides)
    planes = len(node.get("planes", ()))
    read: Tensor = decode([next(parts) for _ in range(planes)], prod(once)) if planes else next(parts)
    flat = read.view(dtype)
    if node.get("gaps"):
        spaced = torch.empty_strided(once, strides, dtype=dtype)
        return spaced.copy_(flat.view(once)).as_strided(shape, strides)
    return flat.as_strided(shape, strides)
