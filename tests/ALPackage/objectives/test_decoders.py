"""What layers reconstruct of a network's input, and with what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage.bridges import bridge_to
from ALPackage.objectives.decoders import Bilinear, InputValues, decoder_of, reconstruction_error
from ALPackage.objectives.part import Part


@pytest.mark.parametrize("sizes", [((2, 3), (7, 5)), ((1, 1), (4, 4)), ((5, 4), (1, 8)), ((6, 6), (6, 6))])
def test_interpolation_is_torch_s_with_its_gradient(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    given, wanted = sizes
    maps = torch.randn(2, 3, *given, requires_grad=True)
    found = Bilinear(given, wanted)(maps)
    expected = F.interpolate(maps, wanted, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    (one,) = torch.autograd.grad((found * weights).sum(), maps)
    (other,) = torch.autograd.grad((expected * weights).sum(), maps)
    torch.testing.assert_close(one, other)


def slow_error(decoded: Tensor, values: Tensor, real: Tensor) -> float:
    """Return the error row by row, position by position."""
    total = 0.0
    for row in range(len(values)):
        positions = [place for place in range(values.shape[1]) if real[row, place]]
        if decoded.dim() == 3:
            errors = [((decoded[row, place] - values[row, place]) ** 2).mean().item() for place in positions]
            total += sum(errors) / len(positions)
        else:
            mean = torch.stack([values[row, place] for place in positions]).mean(0)
            total += ((decoded[row] - mean) ** 2).mean().item()
    return total / len(values)


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 4)])
def test_only_real_positions_count_and_every_row_alike(shape: tuple[int, ...]) -> None:
    values, decoded = torch.randn(3, 5, 4), torch.randn(shape)
    real = torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
    found = reconstruction_error(decoded, (values, real))
    assert found.item() == pytest.approx(slow_error(decoded, values, real), rel=1e-5)
    more = F.pad(values, (0, 0, 0, 2), value=9.0), F.pad(real, (0, 2))
    wide = F.pad(decoded, (0, 0, 0, 2), value=5.0) if decoded.dim() == 3 else decoded
    torch.testing.assert_close(reconstruction_error(wide, more), found)


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        ((3, 2, 6, 6), (3, 5, 3, 3)),
        ((3, 2, 6, 6), (3, 7)),
        ((3, 2, 6, 6), (3, 4, 8)),
        ((3, 5, 4), (3, 5, 8)),
        ((3, 5, 4), (3, 6, 8)),
        ((3, 5, 4), (3, 8)),
        ((3, 6), (3, 8)),
        ((3, 6), (3, 2, 4, 4)),
    ],
)
def test_there_is_a_decoder_from_any_output_to_any_input(given: tuple[int, ...], returned: tuple[int, ...]) -> None:
    x, hidden = torch.randn(given), torch.randn(returned)
    part = Part("one", nn.Identity(), bridge_to(hidden), x, hidden)
    original = InputValues(part)(x)
    assert original[0] is x
    decoded = decoder_of(part, original[0], 8)(hidden)
    assert decoded.shape == x.shape or decoded.shape == (3, 4)
    assert reconstruction_error(decoded, original).isfinite()


class Words(nn.Module):
    """An embedding that returns its tokens' lengths too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.table(x[0]), x[1]


def test_tokens_are_reconstructed_as_the_embeddings_with_which_training_began() -> None:
    f = Words()
    start = f.table.weight.detach().clone()
    tokens, lengths = torch.randint(9, (3, 5)), torch.tensor([5, 1, 3])
    original = InputValues(Part("one", f, nn.Identity, (tokens, lengths)))  # type: ignore[arg-type]
    with torch.no_grad():
        f.table.weight.zero_()
    values, real = original((tokens, lengths))
    scale = start.square().mean().sqrt()
    torch.testing.assert_close(values, start[tokens] / scale)
    assert real is not None
    assert real.sum(1).tolist() == [5, 1, 3]
    assert not list(original.parameters())
    assert list(original.state_dict()) == ["table"]


def test_tokens_that_no_embedding_reads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 'one': cannot reconstruct an input torch\.int64 \(3, 5\)"):
        InputValues(Part("one", nn.Identity(), nn.Identity, torch.zeros(3, 5, dtype=torch.int64)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 'one': its input has no tensor first"):
        InputValues(Part("one", nn.Identity(), nn.Identity, "text"))  # type: ignore[arg-type]
