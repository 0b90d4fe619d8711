"""The Transformer text classifier: an embedding with positions and encoder layers with a padding mask."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.randomness import Dropout

from .blocks import Block
from .text_parts import Embedding, Mean, Sequences, read_bridge, real_positions


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part, each normalized before and added to its input.

    Normalizing before (Xiong et al. 2020) trains without a warm-up. Dropout acts on both residual branches and
    within the feed-forward part, from the layer's own stream.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"transformer: got {heads} heads for a width of {width}; expected a divisor of the width")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Sequences) -> Sequences:
        """Return ((B, T, D), lengths) for ((B, T, D), lengths)."""
        features, lengths = x
        features = features + self.dropout(self._attend(self.attention_norm(features), lengths))
        return features + self.dropout(self.feed_forward(features)), lengths

    def _attend(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return multi-head attention over each sample's real positions, (B, T, D)."""
        B, T, D = features.shape
        query, key, value = (
            part.reshape(B, T, self.heads, D // self.heads).transpose(1, 2)
            for part in self.project_in(features).chunk(3, dim=-1)
        )
        mask = real_positions(lengths, T)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.project_out(mixed.transpose(1, 2).reshape(B, T, D))
        return out


def transformer(
    *,
    n_classes: int,
    vectors: Tensor,
    hidden: int,
    heads: int,
    n_layers: int,
    dropout: float,
    word_dropout: float,
    act: str,
    bridge: str,
) -> tuple[list[Block], nn.Module]:
    """Return the embedding block and `n_layers` encoder blocks, and the BP head on the mean of real positions.

    `vectors`: initial embeddings (V, D); the model's width is D. `hidden`: units of the feed-forward part.
    `word_dropout`: the embedding's. `act`, `bridge`: activation and form of the bridges.
    """
    width = vectors.shape[1]
    bridged = partial(_bridge, width, act, bridge)
    embedding = Embedding(vectors, dropout, positional=True, word_dropout=word_dropout)
    blocks = [Block("embedding", embedding, bridged)]
    for number in range(1, n_layers + 1):
        blocks.append(Block(f"encoder_{number}", EncoderLayer(width, heads, hidden, dropout), bridged))
    return blocks, _read(width, n_classes)


def _bridge(features: int, act: str, kind: str, code_dim: int) -> nn.Module:
    return read_bridge(_read(features, code_dim), act, kind, code_dim)


def _read(features: int, out: int) -> nn.Sequential:
    """Return the normalized mean over real positions, then a linear layer: the head, and the start of every bridge."""
    return nn.Sequential(Mean(), nn.LayerNorm(features), nn.Linear(features, out))
