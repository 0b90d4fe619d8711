"""The Transformer: its positions, and its attention against a slow reference."""

from __future__ import annotations

import math

import pytest
import torch

from models.text_parts import sinusoids
from models.transformer import EncoderLayer

from .small_text import LENGTHS, al, bp


def test_sinusoids_equal_the_formula_of_the_paper() -> None:
    table = sinusoids(11, 6)
    for position in range(11):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("width", [1, 2, 7, 50, 300])
def test_sinusoids_of_any_width(width: int) -> None:
    assert sinusoids(5, width).shape == (5, width)
    assert sinusoids(5, width).abs().max() <= 1.0


def test_the_transformer_sees_the_order_of_words() -> None:
    """Guards a bug: there was no positional encoding, so a text was a bag of words."""
    twin, stack = bp("transformer").eval(), al("transformer").eval()
    lengths = torch.tensor([4])
    one, other = torch.tensor([[3, 9, 5, 12]]), torch.tensor([[12, 5, 9, 3]])
    assert not torch.allclose(twin((one, lengths)), twin((other, lengths)), atol=1e-4)
    assert not torch.allclose(stack.inference((one, lengths)), stack.inference((other, lengths)), atol=1e-6)


def test_attention_equals_a_slow_reference_per_sample_and_head() -> None:
    layer = EncoderLayer(8, 2, 6, 0.0).eval()
    features = torch.randn(4, 7, 8)
    projected = layer.project_in(features)
    found = layer._attend(projected, LENGTHS)
    query, key, value = projected.split(8, dim=-1)
    for row, length in enumerate(LENGTHS.tolist()):
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = query[row, :length, head] @ key[row, :length, head].T / 2.0
            heads.append(scores.softmax(-1) @ value[row, :length, head])
        torch.testing.assert_close(found[row, :length], layer.project_out(torch.cat(heads, -1)))


def test_an_input_without_a_gradient_changes_nothing_but_rounding() -> None:
    """Such an input takes a shorter way to the same projection and to the same gradients of the weights."""
    layer = EncoderLayer(8, 2, 6, 0.0)
    torch.nn.init.normal_(layer.attention_norm.weight)
    torch.nn.init.normal_(layer.attention_norm.bias)
    features, wanted, found = torch.randn(4, 7, 8), torch.randn(4, 7, 8), []
    for x in (features, features.clone().requires_grad_()):
        layer.zero_grad()
        out, _ = layer((x, LENGTHS))
        (out * wanted).sum().backward()
        found.append([out.detach(), *(p.grad for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(layer._projected(features), layer.project_in(layer.attention_norm(features)))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="n_heads: got 3; expected a divisor of the model's width of 8") as caught:
        bp("transformer", n_heads=3)
    assert "\n" not in str(caught.value)
