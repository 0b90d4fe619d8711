"""Parts that the text models share. What travels between their layers is (features, lengths).

Features are (B, T, D) and lengths int64 (B,), each >= 1; positions at or after a sample's length are padding,
and nothing reads them. Legend: B batch, T positions, D features, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ALPackage.randomness import Dropout

from .blocks import Block, activation
from .text_settings import TextSettings

Sequences = tuple[Tensor, Tensor]


def real_positions(lengths: Tensor, positions: int) -> Tensor:
    """Return bool (B, T): True where a position is before its sample's length."""
    return torch.arange(positions, device=lengths.device) < lengths[:, None]


class Embedding(nn.Module):
    """Look up tokens int64 (B, T) and return their vectors (B, T, D), with sinusoidal positions if asked.

    `vectors`: float (V, D) to start from; they are trained. Row 0 is padding: where it is zero, it stays zero.
    `dropout`: share of the single numbers that is dropped in training; `word_dropout`: share of the words whose vectors
    are dropped whole.
    """

    def __init__(self, vectors: Tensor, dropout: float, positional: bool, word_dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(vectors.shape[0], vectors.shape[1], padding_idx=0, _weight=vectors.clone())
        self.dropout = Dropout(dropout)
        self.word_dropout = Dropout(word_dropout)
        self.positional = positional

    def forward(self, x: Sequences) -> Sequences:
        """Return ((B, T, D), lengths) for (tokens (B, T), lengths)."""
        tokens, lengths = x
        vectors = self.table(tokens)
        if self.training and self.word_dropout.p > 0.0:
            vectors = vectors * self.word_dropout(vectors.new_ones(*tokens.shape, 1))
        if self.positional:
            vectors = vectors + sinusoids(tokens.shape[1], vectors.shape[2], vectors.device).to(vectors.dtype)
        return self.dropout(vectors), lengths


def sinusoids(positions: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the positional encoding float (positions, width) of Vaswani et al. 2017, section 3.5, made on `device`."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angles = torch.arange(positions, device=device)[:, None] * rates
    encoding = torch.zeros(positions, width, device=device)
    encoding[:, 0::2] = angles.sin()
    encoding[:, 1::2] = angles.cos()[:, : width // 2]
    return encoding


class Mean(nn.Module):
    """Average the features of a sample's real positions: ((B, T, D), lengths) -> (B, D)."""

    def forward(self, x: Sequences) -> Tensor:
        """Return the mean over positions before each length."""
        features, lengths = x
        # As a matrix product: a mask and a sum would go over all features three times more, there and back. Padding
        # counts zero times, and is finite, because it is computed as the rest is.
        real = real_positions(lengths, features.shape[1]).to(features.dtype)
        return torch.bmm(real[:, None], features).squeeze(1) / lengths[:, None].to(features.dtype)


class LastStates(nn.Module):
    """Return the last state of both directions of a bidirectional LSTM: ((B, T, 2H), lengths) -> (B, 2H).

    The forward direction ends at a sample's last real position, the backward one at its first.
    """

    def forward(self, x: Sequences) -> Tensor:
        """Return the concatenated last states."""
        features, lengths = x
        half = features.shape[2] // 2
        rows = torch.arange(len(lengths), device=lengths.device)
        return torch.cat([features[rows, lengths - 1, :half], features[:, 0, half:]], dim=1)


def bridge_of_states(pooled: nn.Sequential, code_dim: int, settings: TextSettings) -> nn.Module:
    """Return a bridge: `pooled`, which maps the states to `code_dim` units, and what follows it.

    "linear": nothing, as in BP's head. "hidden": the activation and a linear layer.
    """
    more = [activation(settings.act), nn.Linear(code_dim, code_dim)] if settings.bridge == "hidden" else []
    return nn.Sequential(*pooled, *more)


def in_a_row(layers: Sequence[nn.Module]) -> nn.Module:
    """Return the layers as one; a single one as it is, so that its weights keep the names that checkpoints know."""
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def split_text(blocks: list[Block], settings: TextSettings) -> list[Block]:
    """Return the blocks as they are ("apart"), or with the embedding and the layer that reads it as one ("joined").

    An embedding that is a layer of its own learns what the mean of its vectors says about the class, and nothing about
    their order.
    """
    if settings.cut == "apart":
        return blocks
    embedding, reader, *rest = blocks
    return [Block(reader.name, nn.Sequential(embedding.f, reader.f), reader.bridge), *rest]
