"""A bridge for what a layer returns: from maps, tokens or vectors, found in an example's shape, to codes.

Legend: B batch, C channels, H, W height and width of maps, T positions, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

#: Makes a bridge: from what a layer returns for the example, and the width of the codes.
BridgeFactory = Callable[[Any, int], nn.Module]
#: Units of a bridge's hidden layer.
HIDDEN = 256
#: Maps are averaged to this many rows and columns.
SIDE = 2


def bridge_to(
    output: Any, kind: str | BridgeFactory = "auto", *, channels_first: bool = False
) -> Callable[[int], nn.Module]:
    """Return what makes a bridge from outputs like this one to codes (B, width), given the width.

    Args:
        output: What a layer returns for the example: a tensor, or a tuple or a dict that has one first: maps (B, C, H,
            W), tokens (B, T, D), with their mask or lengths (see `TokenMean`) behind them or not, or vectors (B, D).
        kind: "linear": maps are averaged to 2x2 and tokens over their positions, then a linear layer follows.
            "hidden": a hidden layer before it. "auto": "linear" for tokens, else "hidden". Or a function that makes the
            bridge from (output, width).
        channels_first: Whether three dimensions are (B, C, T), as a `Conv1d` has them: they are maps of height 1.

    Raises:
        ValueError: For an output that is none of these, and for an unknown name.

    Example:
        >>> make = bridge_to(torch.zeros(2, 16, 8, 8))
        >>> make(10)(torch.randn(5, 16, 8, 8)).shape
        torch.Size([5, 10])
    """
    if callable(kind):
        return partial(kind, output)
    if kind not in ("auto", "linear", "hidden"):
        raise ValueError(f"bridge: got {kind!r}; expected auto, linear, hidden, or a function of (output, width)")
    features = first_tensor(output)
    if features is None or not features.is_floating_point() or features.dim() not in (2, 3, 4):
        what = "no tensor first" if features is None else f"{features.dtype} {tuple(features.shape)}"
        raise ValueError(
            f"there is no bridge for an output with {what}; expected maps (B, C, H, W), tokens (B, T, D) or vectors "
            "(B, D), or a bridge= of your own"
        )
    rows = channels_first and features.dim() == 3
    hidden = kind == "hidden" or (kind == "auto" and (features.dim() != 3 or rows))
    return partial(_bridge, output, hidden, rows)


def _bridge(output: Any, hidden: bool, rows: bool, width: int) -> nn.Module:
    features = first_tensor(output)
    assert features is not None
    front: list[nn.Module] = [] if isinstance(output, Tensor) else [First()]
    units = features.shape[1]
    if rows:
        front.append(nn.Unflatten(1, (units, 1)))
        features = features.unsqueeze(2)
    if features.dim() == 4:
        side = [min(size, SIDE) for size in features.shape[2:]]
        front += [shrink(features.shape[2:], side), nn.Flatten()]
        units *= side[0] * side[1]
    elif features.dim() == 3:
        units = features.shape[2]
        front = [TokenMean.of(output), nn.LayerNorm(units)]
    middle = [nn.Linear(units, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU()] if hidden else []
    return nn.Sequential(*front, *middle, nn.Linear(HIDDEN if hidden else units, width))


def first_tensor(output: Any) -> Tensor | None:
    """Return a tensor, or the first entry of a tuple, a list or a dict if that is one."""
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        output = output[0] if output else None
    return output if isinstance(output, Tensor) else None


class First(nn.Module):
    """Hand on the first entry of a tuple or a dict; a tensor as it is."""

    def forward(self, x: Any) -> Any:
        """Return it."""
        return first_tensor(x)


def shrink(sizes: Sequence[int], to: Sequence[int]) -> nn.Module:
    """Return average pooling from maps of `sizes` (height, width) to maps of `to`, neither larger than they are.

    The windows overlap where `to` does not divide a size. They are fixed, because the backward pass of adaptive pooling
    is not deterministic on a GPU.
    """
    if tuple(sizes) == tuple(to):
        return nn.Identity()
    (height, width), (rows, columns) = sizes, to
    strides = height // rows, width // columns
    windows = height - (rows - 1) * strides[0], width - (columns - 1) * strides[1]
    return nn.AvgPool2d(windows, stride=strides)


class TokenMean(nn.Module):
    """Average tokens (B, T, D) over the real positions of each sample, to (B, D).

    Args:
        mask: The entry beside the tokens that says which positions are real, by index or by key; None: all are.
        reading: How it is read: "lengths": int (B,), positions before it; "real": (B, T), or (B, 1, .., T) of an
            attention, where it is not zero; "padding": where it is zero, as for a mask that is true where padding is,
            or that is added to the scores of an attention.

    Example:
        >>> mean = TokenMean(1, "lengths")
        >>> mean((torch.ones(2, 5, 3), torch.tensor([1, 4]))).shape
        torch.Size([2, 3])
    """

    def __init__(self, mask: int | str | None = None, reading: str = "real") -> None:
        super().__init__()
        self.mask, self.reading = mask, reading

    @classmethod
    def of(cls, output: Any) -> TokenMean:
        """Return the one that suits a layer's output for the example: its mask is the first entry that looks like one.

        Integers (B,) are lengths. Whether a mask says where samples are real or where they are padded, its key or the
        example tells (`_reading`).
        """
        tokens = first_tensor(output)
        assert tokens is not None
        batch, positions = tokens.shape[:2]
        pairs = output.items() if isinstance(output, Mapping) else enumerate(output)
        for key, value in [] if isinstance(output, Tensor) else list(pairs)[1:]:
            if not isinstance(value, Tensor) or value.shape[:1] != (batch,):
                continue
            if value.dim() == 1 and not value.is_floating_point() and value.dtype != torch.bool:
                return cls(key, "lengths")
            of_attention = value.dim() == 4 and value.shape[2] in (1, positions)
            if value.shape[-1:] == (positions,) and (value.dim() == 2 or of_attention):
                return cls(key, _reading(key, value))
        return cls()

    def forward(self, x: Any) -> Tensor:
        """Return the means (B, D); a sample without a real position gets zeros."""
        tokens = first_tensor(x)
        assert tokens is not None
        real = self.real(x)
        if real is None:
            return tokens.mean(1)
        real = real.to(tokens.dtype)
        return torch.bmm(real[:, None], tokens).squeeze(1) / real.sum(1, keepdim=True).clamp_min(1)

    def real(self, x: Any) -> Tensor | None:
        """Return bool (B, T), true where a position is real; None if all are."""
        tokens = first_tensor(x)
        assert tokens is not None
        return None if self.mask is None else self._real(x[self.mask], tokens.shape[1])

    def _real(self, mask: Tensor, positions: int) -> Tensor:
        if self.reading == "lengths":
            return torch.arange(positions, device=mask.device) < mask[:, None]
        marked = _by_position(mask) != 0
        return ~marked if self.reading == "padding" else marked


def _by_position(mask: Tensor) -> Tensor:
    """Return a mask (B, T); of (B, 1, 1, T) or (B, heads, T, T) what the last position may see."""
    return mask.flatten(1, -2)[:, -1] if mask.dim() > 2 else mask


def _reading(key: int | str, mask: Tensor) -> str:
    """Return whether a mask is not zero where samples are real, or where they are padded; see `TokenMean`.

    A floating-point one without a positive value is added to scores: not zero is padded. A key with "padding" says it,
    and so does the example, as no sample is nothing but padding, and texts begin with what is real.
    """
    added = mask.is_floating_point() and not bool((mask > 0).any())
    marked = _by_position(mask) != 0
    if added or "padding" in str(key) or not bool(marked.any(1).all()):
        return "padding"
    if isinstance(key, str) or bool(marked.all(1).any()) or bool(marked[:, 0].any()):
        return "real"
    return "padding"
