"""The two networks and their data: the same for every contestant, made before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ALPackage import ALStack
from models import BPModel, build_text, build_vision

__all__ = ["BATCH", "DISTINCT", "MODELS", "Part", "al_model", "arguments", "bp_layers", "describe", "make_batches"]

MODELS = ("vgg", "transformer")
BATCH = 64
#: Batches that are made; a run goes round them, so that the data takes little of the peak memory.
DISTINCT = 8
LR = 1e-3
WEIGHT_DECAY = 0.01
SEED = 0

Batch = tuple[Any, Tensor]


def describe(model: str, quick: bool) -> dict[str, Any]:
    """Return the settings of a model: those of its AL and BP form, then those of its data."""
    if model == "vgg":
        return {
            "n_classes": 200,
            "in_channels": 3,
            "image_size": 16 if quick else 32,
            "width": 0.125 if quick else 0.5,
            "enc_dim": 256,
            "ae_dim": 128,
            "bridge": "pool",
        }
    return {
        "n_classes": 14,
        "x_hid": 256,
        "y_hid": 128,
        "n_heads": 6,
        "al_layers": 3,
        "dropout": 0.3,
        "words": 5000,
        "embedding_dim": 60 if quick else 300,
        "positions": 8 if quick else 32,
    }


def _build(model: str, form: str, quick: bool, **local: Any) -> ALStack | BPModel:
    settings = describe(model, quick)
    torch.manual_seed(SEED)
    if model == "vgg":
        return build_vision("vgg", form, **settings, **local)
    words, width = settings.pop("words"), settings.pop("embedding_dim")
    del settings["positions"]
    vectors = torch.randn(words, width) * 0.4
    vectors[0] = 0.0
    return build_text("transformer", form, vectors=vectors, bridge="hidden", **settings, **local)


def al_model(model: str, quick: bool) -> ALStack:
    """Return the AL form, in training mode."""
    stack = _build(
        model, "al", quick, association="contrastive", temperature=0.2, lr=LR, weight_decay=WEIGHT_DECAY
    ).train()
    assert isinstance(stack, ALStack)
    return stack


def bp_layers(model: str, quick: bool) -> list[tuple[str, nn.Module]]:
    """Return the layers of the BP form by name, the head last, in training mode."""
    stack = _build(model, "bp", quick).train()
    assert isinstance(stack, BPModel)
    return list(stack.layers.items())


class Part(nn.Module):
    """Consecutive BP layers as one module from tensor to tensor.

    The lengths of texts are an argument beside the features, as every process has them: less to send.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what the last of the layers makes of `x`."""
        for layer in self.layers:
            out = layer(x if lengths is None else (x, lengths))
            x = out[0] if isinstance(out, tuple) else out
        return x


def arguments(x: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a batch's input as (tensor, keyword arguments) for a `Part`."""
    return (x[0], {"lengths": x[1]}) if isinstance(x, tuple) else (x, {})


def make_batches(model: str, quick: bool, size: int = BATCH, part: int = 0) -> list[Batch]:
    """Return DISTINCT batches of noise shaped as real data; of each, the `part`th share of `size` samples."""
    settings = describe(model, quick)
    made = torch.Generator().manual_seed(SEED)
    rows = slice(part * size, (part + 1) * size)
    batches: list[Batch] = []
    for _ in range(DISTINCT):
        labels = torch.randint(settings["n_classes"], (BATCH,), generator=made)[rows]
        if model == "vgg":
            shape = BATCH, settings["in_channels"], settings["image_size"], settings["image_size"]
            batches.append((torch.randn(shape, generator=made)[rows].clone(), labels))
            continue
        positions = settings["positions"]
        lengths = torch.randint(positions // 4, positions + 1, (BATCH,), generator=made)[rows]
        tokens = torch.randint(1, settings["words"], (BATCH, positions), generator=made)[rows]
        padding = torch.arange(positions) >= lengths[:, None]
        batches.append(((tokens.masked_fill(padding, 0), lengths), labels))
    return batches
