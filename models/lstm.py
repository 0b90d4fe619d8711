"""The LSTM text classifier: an embedding and bidirectional LSTMs over the real positions."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ALPackage.randomness import Dropout

from .blocks import Block
from .text import Embedding, LastStates, Mean, Sequences, read_bridge

__all__ = ["lstm"]


class BiLSTM(nn.Module):
    """One bidirectional LSTM over packed sequences, so that padding is never read: D -> 2 * hidden features."""

    #: Packing reads the lengths on the host, which no CUDA graph can hold.
    capturable = False

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)
        self.dropout = Dropout(dropout)

    def forward(self, x: Sequences) -> Sequences:
        """Return ((B, T, 2 * hidden), lengths) for ((B, T, D), lengths)."""
        features, lengths = x
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=features.shape[1])
        return self.dropout(states), lengths


def lstm(
    *, n_classes: int, vectors: Tensor, hidden: int, n_layers: int, dropout: float, act: str
) -> tuple[list[Block], nn.Module]:
    """Return the embedding block and `n_layers` LSTM blocks, and the BP head on the true last states.

    `vectors`: initial embeddings (V, D). `hidden`: units of each direction. `act`: activation in the bridges.
    """
    width = vectors.shape[1]
    blocks = [Block("embedding", Embedding(vectors, dropout, positional=False), partial(_bridge, Mean, width, act))]
    for number in range(1, n_layers + 1):
        layer, width = BiLSTM(width, hidden, dropout), 2 * hidden
        blocks.append(Block(f"lstm_{number}", layer, partial(_bridge, LastStates, width, act)))
    return blocks, _read(LastStates, width, n_classes)


def _bridge(pooling: type[nn.Module], features: int, act: str, code_dim: int) -> nn.Module:
    return read_bridge(_read(pooling, features, code_dim), act, code_dim)


def _read(pooling: type[nn.Module], features: int, out: int) -> nn.Sequential:
    """Return pooling over the real positions, then a linear layer: the head, and the beginning of every bridge."""
    return nn.Sequential(pooling(), nn.Linear(features, out))
