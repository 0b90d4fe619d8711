"""What a network's input is to its layers that reconstruct it, and the small decoders with which they do.

What is reconstructed is (values, real): values float, and real bool (B, T), true where a position is no padding, or
None. Legend: B batch, C channels, H, W height and width of maps, T positions, D features, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bridges import First, TokenMean, first_tensor
from .association import full_precision
from .part import Part

Original = tuple[Tensor, Tensor | None]
#: Channels between the two convolutions of a decoder of maps.
CHANNELS = 12


class InputValues(nn.Module):
    """Return what is to be reconstructed of an input: float numbers as they are, tokens as their first embeddings.

    Args:
        first: The first part of a network, which knows what it gets.

    Raises:
        ValueError: For tokens where no `nn.Embedding` reads them, and for an input without a tensor.
    """

    table: Tensor | None

    def __init__(self, first: Part) -> None:
        super().__init__()
        values = first_tensor(first.given)
        if values is None:
            raise ValueError(f"layer {first.name!r}: its input has no tensor first, so there is nothing to reconstruct")
        table = None
        if not values.is_floating_point():
            found = [one for one in first.f.modules() if isinstance(one, nn.Embedding)]
            if not found or values.dim() != 2:
                raise ValueError(
                    f"layer {first.name!r}: cannot reconstruct an input {values.dtype} {tuple(values.shape)}; expected "
                    "tokens (B, T) that an nn.Embedding of this layer reads, or floating-point numbers"
                )
            # Of mean square 1, as normalized images are, so that the loss is worth the same whatever the vectors are.
            table = found[0].weight.detach().clone()
            table /= table.square().mean().sqrt().clamp_min(1e-12)
        self.register_buffer("table", table)
        self.mean = TokenMean.of(first.given) if table is not None or values.dim() == 3 else None

    @torch.no_grad()
    def forward(self, x: object) -> Original:
        """Return (values, real): values (B, T, D) for tokens."""
        values = first_tensor(x)
        assert values is not None
        real = None if self.mean is None else self.mean.real(x)
        return (values if self.table is None else F.embedding(values, self.table)), real


def decoder_of(part: Part, values: Tensor, width: int) -> nn.Module:
    """Return a new decoder from what a layer returns to the values of its network's input, or to their means (B, D).

    From maps to maps: bilinear interpolation to the input's size and two convolutions. From tokens to as many tokens,
    and from vectors to vectors: a linear map. In any other case the layer's own bridge, to `width` units, and a linear
    map: to all values, or, of tokens, to their mean over the real positions.
    """
    features = first_tensor(part.returned)
    front: list[nn.Module] = [] if isinstance(part.returned, Tensor) else [First()]
    if features is not None and features.dim() == values.dim():
        if values.dim() == 4:
            return nn.Sequential(
                *front,
                Bilinear((features.shape[2], features.shape[3]), (values.shape[2], values.shape[3])),
                nn.Conv2d(features.shape[1], CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(),
                nn.Conv2d(CHANNELS, values.shape[1], 3, padding=1),
            )
        if values.dim() == 2 or features.shape[1] == values.shape[1]:
            return nn.Sequential(*front, nn.Linear(features.shape[-1], values.shape[-1]))
    if values.dim() == 3:
        return nn.Sequential(part.bridge(width), nn.ReLU(), nn.Linear(width, values.shape[2]))
    sizes = values.shape[1:]
    return nn.Sequential(part.bridge(width), nn.ReLU(), nn.Linear(width, sizes.numel()), nn.Unflatten(1, tuple(sizes)))


def reconstruction_error(decoded: Tensor, original: Original) -> Tensor:
    """Return the mean squared difference, 0-d, a mean over the rows, each a mean over its real positions.

    Where the values have positions and what is decoded has none, it is compared with their mean.
    """
    values, real = original
    values, decoded = full_precision(values), full_precision(decoded)
    if values.dim() != 3:
        return F.mse_loss(decoded, values)
    share = values.new_ones(values.shape[:2]) if real is None else real.to(values.dtype)
    share = share / share.sum(1, keepdim=True).clamp_min(1)
    if decoded.dim() == 2:
        return F.mse_loss(decoded, (values * share[..., None]).sum(1))
    return ((decoded - values).square().mean(2) * share).sum(1).mean()


class Bilinear(nn.Module):
    """Interpolate maps (B, C, H, W) to another size as `F.interpolate` does with bilinear and align_corners=True.

    As two products of matrices, because on a GPU the backward pass of torch's own adds up in no fixed order.

    Args:
        given: Height and width of the maps.
        wanted: Those of what they become.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, given: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", _weights(given[0], wanted[0]), persistent=False)
        self.register_buffer("columns", _weights(given[1], wanted[1]).T.contiguous(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the wanted size."""
        return self.rows @ (maps @ self.columns)


def _weights(given: int, wanted: int) -> Tensor:
    """Return what every given position counts at every wanted one, float (wanted, given)."""
    places = torch.linspace(0, given - 1, wanted) if wanted > 1 else torch.zeros(1)
    return (1 - (places[:, None] - torch.arange(given)).abs()).clamp_min(0)
