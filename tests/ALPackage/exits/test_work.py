"""Work by depth: counted, with what torch's counter does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from ALPackage.exits.work import Work, count_work


def stack_of(f: nn.Module, b: nn.Module) -> ALStack:
    return ALStack([AL(ENC(f, b), AE(nn.Linear(3, 4), nn.Linear(4, 3)))]).eval()


def test_linear_layers_by_hand() -> None:
    parts = [(6, 8, 3), (8, 5, 4)]
    stack = ALStack(
        AL(ENC(nn.Linear(x, h), nn.Linear(h, 4)), AE(nn.Linear(y, 4), nn.Linear(4, y))) for x, h, y in parts
    ).eval()
    work = count_work(stack, torch.randn(7, 6))
    assert work.hidden == [2 * 6 * 8, 2 * 8 * 5]
    assert work.reading == [2 * (8 * 4 + 4 * 3), 2 * (5 * 4 + 4 * 4 + 4 * 3)]
    assert work.full == sum(work.hidden) + work.reading[1]
    assert work.at(2) == 1
    assert work.at(1) == (work.hidden[0] + work.reading[0]) / work.full


class Recurrent(nn.Module):
    """An LSTM over padded or packed sequences; the last output."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.lstm, self.packed = nn.LSTM(5, 6, batch_first=True), packed

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        features, lengths = x
        given: Any = features
        if self.packed:
            given = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.lstm(given)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0][:, -1] if self.packed else out[:, -1]


@pytest.mark.parametrize(("packed", "positions"), [(False, 2 * 4), (True, 4 + 1)])
def test_recurrent_layers_count_their_weights_at_every_position(packed: bool, positions: int) -> None:
    stack = stack_of(Recurrent(packed), nn.Linear(6, 4))
    weights = sum(parameter.numel() for parameter in stack[0].enc.f.parameters())
    work = count_work(stack, (torch.randn(2, 4, 5), torch.tensor([4, 1])))
    assert work.hidden == [2 * weights * positions / 2]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stack.modules())


class First(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, 0])


def test_attention_that_a_cpu_computes_in_one_piece() -> None:
    width, hidden, tokens = 8, 16, 5
    fast = torch.backends.mha.get_fastpath_enabled()
    stack = stack_of(nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True), First(width, 4))
    work = count_work(stack, torch.randn(3, tokens, width))
    assert work.hidden == [2 * tokens * (4 * width * width + 2 * width * hidden) + 2 * 2 * tokens * tokens * width]
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_compiled_layers_count_as_they_were() -> None:
    stack = stack_of(nn.Linear(6, 8), nn.Linear(8, 4))
    stack[0].enc.f.compile(backend="eager")
    assert count_work(stack, torch.randn(7, 6)).hidden == [2 * 6 * 8]


def test_where_there_is_nothing_to_count() -> None:
    stack = ALStack([AL(ENC(nn.PReLU(), nn.Identity()), AE(nn.PReLU(), nn.Identity()))]).eval()
    with pytest.raises(ValueError, match="no floating-point operations can be counted"):
        count_work(stack, torch.randn(7, 6))


def test_shares_are_of_all_layers_with_one_prediction() -> None:
    work = Work([10.0, 30.0, 50.0], [5.0, 6.0, 10.0])
    assert work.full == 100
    assert [work.at(depth) for depth in (1, 2, 3)] == [0.15, 0.46, 1.0]
