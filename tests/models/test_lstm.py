"""The LSTM against torch's on packed sequences, and what its head and bridges read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.lstm import BiLSTM, reversed_positions
from models.text_parts import LastStates, Mean, real_positions

from .small_text import al, bp, text


def packed_twin(layer: Any) -> nn.LSTM:
    """Return torch's bidirectional LSTM with the weights of a `BiLSTM`."""
    twin = nn.LSTM(layer.ahead.input_size, layer.ahead.hidden_size, batch_first=True, bidirectional=True)
    weights = {**layer.ahead.state_dict(), **{f"{name}_reverse": w for name, w in layer.back.state_dict().items()}}
    twin.load_state_dict(weights)
    return twin


def test_the_bidirectional_lstm_equals_that_of_torch_on_packed_sequences() -> None:
    layer = BiLSTM(5, 4, dropout=0.0)
    features, lengths = torch.randn(6, 9, 5), torch.tensor([9, 1, 4, 8, 2, 9])
    real = real_positions(lengths, 9)[..., None]
    one, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    states = layer((one, lengths))[0] * real
    twin = packed_twin(layer)
    packed = nn.utils.rnn.pack_padded_sequence(other, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True, total_length=9)
    torch.testing.assert_close(states, expected)
    wanted = torch.randn_like(states)
    (states * wanted).sum().backward()
    (expected * wanted).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    assert one.grad is not None
    assert not one.grad[~real[..., 0]].any()  # padding is never read
    for name, weight in layer.ahead.named_parameters():
        torch.testing.assert_close(weight.grad, getattr(twin, name).grad)
        torch.testing.assert_close(getattr(layer.back, name).grad, getattr(twin, f"{name}_reverse").grad)


def test_places_are_mirrored_within_the_length_and_padding_stays() -> None:
    places = reversed_positions(torch.tensor([4, 1, 3]), 4)
    assert places.tolist() == [[3, 2, 1, 0], [0, 1, 2, 3], [2, 1, 0, 3]]


def test_the_bp_lstm_reads_the_true_last_states() -> None:
    """Guards a bug: it read position -1, which is padding in every sample but the longest."""
    twin = bp("lstm", reading="last").eval()
    layers = list(twin.layers.values())
    tokens, lengths = text()
    logits = twin((tokens, lengths))
    for row, length in enumerate(lengths.tolist()):
        x: Any = layers[0].table(tokens[row : row + 1, :length])  # type: ignore[operator]
        for layer in layers[1:-1]:
            x, (last, _) = packed_twin(layer)(x)
        read = torch.cat([last[0], last[1]], dim=1)  # the last states of both directions
        torch.testing.assert_close(layers[-1][1](read), logits[row : row + 1])  # type: ignore[index]


def test_last_states_by_hand() -> None:
    features = torch.arange(12.0).reshape(1, 3, 4).repeat(2, 1, 1)
    read = LastStates()((features, torch.tensor([2, 3])))
    assert read.tolist() == [[4.0, 5.0, 2.0, 3.0], [8.0, 9.0, 2.0, 3.0]]


def test_lstm_hidden_sizes() -> None:
    stack = bp("lstm", x_hid=6)
    shapes = [(m.ahead.input_size, m.ahead.hidden_size) for m in stack.modules() if isinstance(m, BiLSTM)]
    assert shapes == [(8, 6), (12, 6), (12, 6)]


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(ValueError, match='reading: got "first"; expected one of "mean", "last"'):
        bp("lstm", reading="first")


def test_the_mean_is_read_by_head_and_bridges_alike() -> None:
    for reading, kind in (("mean", Mean), ("last", LastStates)):
        parts = [
            bp("lstm", reading=reading).layers["head"],
            *(layer.enc.b for layer in list(al("lstm", reading=reading))[1:]),
        ]
        assert all(any(isinstance(m, kind) for m in part.modules()) for part in parts)
