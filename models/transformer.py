"""The Transformer text classifier: an embedding with positions and encoder layers with a padding mask."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.randomness import Dropout

from .blocks import Block
from .shapes import TextShape
from .text_parts import Embedding, Mean, Sequences, bridge_of_states, in_a_row, real_positions, split_text
from .text_settings import TransformerSettings


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part, each normalized before and added to its input.

    With normalization before each part (Xiong et al. 2020) it trains without a warm-up. Dropout acts on both residual
    branches and within the feed-forward part, and draws from the layer's own random stream.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
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
        features = features + self.dropout(self._attend(self._projected(features), lengths))
        return features + self.dropout(self.feed_forward(features)), lengths

    def _projected(self, features: Tensor) -> Tensor:
        """Return queries, keys and values of the normalized features, (B, T, 3 D)."""
        norm, linear = self.attention_norm, self.project_in
        if features.requires_grad or not torch.is_grad_enabled():
            out: Tensor = linear(norm(features))
            return out
        # The input of a local layer needs no gradient, but scale and shift of the normalization would need the one
        # that reaches them through the projection: a matrix product as large as the projection. As parts of its
        # weights they do not.
        plain = F.layer_norm(features, norm.normalized_shape, eps=norm.eps)
        return F.linear(plain, linear.weight * norm.weight, F.linear(norm.bias, linear.weight, linear.bias))

    def _attend(self, projected: Tensor, lengths: Tensor) -> Tensor:
        """Return multi-head attention over each sample's real positions, (B, T, 3 D) -> (B, T, D)."""
        B, T, D = *projected.shape[:2], projected.shape[2] // 3
        query, key, value = (
            part.reshape(B, T, self.heads, D // self.heads).transpose(1, 2) for part in projected.chunk(3, dim=-1)
        )
        mask = real_positions(lengths, T)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.project_out(mixed.transpose(1, 2).reshape(B, T, D))
        return out


def transformer(shape: TextShape, settings: TransformerSettings) -> tuple[list[Block], nn.Module]:
    """Return the embedding block and the encoder blocks, and the BP head on the mean of the real positions.

    The model is as wide as the word vectors.
    """
    width = shape.vectors.shape[1]
    heads = settings.resolve({"embedding_dim": width})["n_heads"]
    bridge = partial(_bridge, width, settings)
    embedding = Embedding(shape.vectors, settings.dropout, positional=True, word_dropout=settings.word_dropout)
    blocks = [Block("embedding", embedding, bridge)]
    for number in range(1, settings.al_layers + 1):
        layers = [EncoderLayer(width, heads, settings.x_hid, settings.dropout) for _ in range(settings.n_layers)]
        blocks.append(Block(f"encoder_{number}", in_a_row(layers), bridge))
    return split_text(blocks, settings), _pooled(width, shape.n_classes)


def _bridge(features: int, settings: TransformerSettings, code_dim: int) -> nn.Module:
    return bridge_of_states(_pooled(features, code_dim), code_dim, settings)


def _pooled(features: int, out: int) -> nn.Sequential:
    """Return the normalized mean over real positions, then a linear layer: the head, and the start of every bridge."""
    return nn.Sequential(Mean(), nn.LayerNorm(features), nn.Linear(features, out))
