"""The LSTM text classifier: an embedding and bidirectional LSTMs over the real positions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ALPackage.randomness import Dropout

from .blocks import Block
from .text_parts import Embedding, LastStates, Mean, Sequences, read_bridge

#: Of all real positions the mean, or the last state of each direction.
READINGS: dict[str, type[nn.Module]] = {"mean": Mean, "last": LastStates}


class BiLSTM(nn.Module):
    """One bidirectional LSTM over the real positions: D -> 2 * hidden features.

    The second direction reads every sample's real positions in reverse, and its states are put back in order. What
    follows a sample's end comes after all that is read in both directions, so no real state depends on it. Packed
    sequences do the same, but a step with them takes more than twice as long on a CPU (benchmarks/NOTES.md).
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
        places = reversed_positions(lengths, features.shape[1])
        ahead, _ = self.ahead(features)
        back, _ = self.back(_taken(features, places))
        return self.dropout(torch.cat([ahead, _taken(back, places)], dim=2)), lengths


def reversed_positions(lengths: Tensor, positions: int) -> Tensor:
    """Return int64 (B, T): for every place the one that it changes with, padding with itself; its own inverse."""
    place = torch.arange(positions, device=lengths.device)
    mirrored = lengths[:, None] - 1 - place
    return torch.where(mirrored >= 0, mirrored, place)


def _taken(features: Tensor, places: Tensor) -> Tensor:
    return features[torch.arange(len(features), device=features.device)[:, None], places]


def lstm(
    *,
    n_classes: int,
    vectors: Tensor,
    hidden: int,
    n_layers: int,
    dropout: float,
    word_dropout: float,
    act: str,
    bridge: str,
    reading: str,
) -> tuple[list[Block], nn.Module]:
    """Return the embedding block and `n_layers` LSTM blocks, and the BP head.

    `vectors`: initial embeddings (V, D). `hidden`: units of each direction. `word_dropout`: the embedding's.
    `act`, `bridge`: activation and form of the bridges. `reading`: what the head and the LSTMs' bridges read of the
    states: "mean" or "last".
    """
    if reading not in READINGS:
        raise ValueError(f"reading: got {reading!r}; expected one of {', '.join(READINGS)}")
    pooling = READINGS[reading]
    width = vectors.shape[1]
    blocks = [
        Block(
            "embedding",
            Embedding(vectors, dropout, positional=False, word_dropout=word_dropout),
            partial(_bridge, Mean, width, act, bridge),
        )
    ]
    for number in range(1, n_layers + 1):
        layer, width = BiLSTM(width, hidden, dropout), 2 * hidden
        blocks.append(Block(f"lstm_{number}", layer, partial(_bridge, pooling, width, act, bridge)))
    return blocks, _read(pooling, width, n_classes)


def _bridge(pooling: type[nn.Module], features: int, act: str, kind: str, code_dim: int) -> nn.Module:
    return read_bridge(_read(pooling, features, code_dim), act, kind, code_dim)


def _read(pooling: type[nn.Module], features: int, out: int) -> nn.Sequential:
    """Return pooling over the real positions, then a linear layer: the head, and the beginning of every bridge."""
    return nn.Sequential(pooling(), nn.Linear(features, out))
