"""The LSTM text classifier: an embedding and bidirectional LSTMs over the real positions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ALPackage.randomness import Dropout

from .blocks import Block
from .shapes import TextShape
from .text_parts import Embedding, LastStates, Mean, Sequences, bridge_of_states, in_a_row, split_text
from .text_settings import LSTMSettings

#: How the states at the real positions become one vector per document.
POOLINGS: dict[str, type[nn.Module]] = {"mean": Mean, "last": LastStates}


class BiLSTM(nn.Module):
    """One bidirectional LSTM over the real positions: D -> 2 * hidden features.

    The second direction gets every sample's real positions in reverse, and its states are put back in order. In both
    directions the padding comes after all real positions, so no real state depends on it. Packed sequences do the
    same, but a step with them takes more than twice as long on a CPU (benchmarks/NOTES.md).
    """

    #: cuDNN's recurrent kernels have not been tried in a CUDA graph.
    capturable = False

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.ahead = nn.LSTM(features, hidden, batch_first=True)
        self.back = nn.LSTM(features, hidden, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, x: Sequences) -> Sequences:
        """Return ((B, T, 2 * hidden), lengths) for ((B, T, D), lengths)."""
        features, lengths = x
        index = reversed_positions(lengths, features.shape[1])
        ahead, _ = self.ahead(features)
        back, _ = self.back(_gather_positions(features, index))
        return self.dropout(torch.cat([ahead, _gather_positions(back, index)], dim=2)), lengths


def reversed_positions(lengths: Tensor, positions: int) -> Tensor:
    """Return the index int64 (B, T) that reverses each sample's real positions and leaves padding in place.

    Applied twice it changes nothing.
    """
    position = torch.arange(positions, device=lengths.device)
    mirrored = lengths[:, None] - 1 - position
    return torch.where(mirrored >= 0, mirrored, position)


def _gather_positions(features: Tensor, index: Tensor) -> Tensor:
    """Return the features (B, T, D) at the positions `index` (B, T) of each sample."""
    return features[torch.arange(len(features), device=features.device)[:, None], index]


def lstm(shape: TextShape, settings: LSTMSettings) -> tuple[list[Block], nn.Module]:
    """Return the embedding block and the blocks of LSTMs, and the BP head.

    The head and the LSTMs' bridges pool the states as `reading` says; the embedding's bridge takes their mean.
    """
    pooling = POOLINGS[settings.reading]
    width = shape.vectors.shape[1]
    embedding = Embedding(shape.vectors, settings.dropout, positional=False, word_dropout=settings.word_dropout)
    blocks = [Block("embedding", embedding, partial(_bridge, Mean, width, settings))]
    for number in range(1, settings.al_layers + 1):
        layers = []
        for _ in range(settings.n_layers):
            layers.append(BiLSTM(width, settings.x_hid, settings.dropout))
            width = 2 * settings.x_hid
        blocks.append(Block(f"lstm_{number}", in_a_row(layers), partial(_bridge, pooling, width, settings)))
    return split_text(blocks, settings), _pooled(pooling, width, shape.n_classes)


def _bridge(pooling: type[nn.Module], features: int, settings: LSTMSettings, code_dim: int) -> nn.Module:
    return bridge_of_states(_pooled(pooling, features, code_dim), code_dim, settings)


def _pooled(pooling: type[nn.Module], features: int, out: int) -> nn.Sequential:
    """Return pooling over the real positions, then a linear layer: the head, and the beginning of every bridge."""
    return nn.Sequential(pooling(), nn.Linear(features, out))
