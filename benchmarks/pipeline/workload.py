"""The four networks and their data: the same for every contestant, made before anything is timed.

Every setting that is not a size is the shipped default of its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ALPackage import ALStack
from models import BPModel, build_text, build_vision

MODELS = ("vgg", "resnet", "lstm", "transformer")
VISION = ("vgg", "resnet")
#: Batches that are made; a run goes round them, so that the data takes little of the peak memory.
DISTINCT = 8
LR = 1e-3
SEED = 0
#: What a model and its data are made of, by size: "quick" tries scripts out, "full" is for a GPU.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "vision": {"batch": 16, "image_size": 16, "width": 0.125},
        "text": {"batch": 16, "words": 1000, "embedding_dim": 60, "positions": 8, "x_hid": 32},
    },
    "half": {
        "vision": {"batch": 64, "image_size": 32, "width": 0.5},
        "text": {"batch": 64, "words": 5000, "embedding_dim": 300, "positions": 32, "x_hid": 256},
    },
    "full": {
        "vision": {"batch": 128, "image_size": 32, "width": 1.0},
        "text": {"batch": 64, "words": 30000, "embedding_dim": 300, "positions": 128, "x_hid": 256},
    },
}
CLASSES = {"vision": 200, "text": 14}

Batch = tuple[Any, Tensor]


def _task(model: str) -> str:
    return "vision" if model in VISION else "text"


def batch_size(model: str, size: str) -> int:
    """Return the number of samples in a batch."""
    samples: int = SIZES[size][_task(model)]["batch"]
    return samples


def _build(model: str, form: str, size: str, **more: Any) -> ALStack | BPModel:
    task = _task(model)
    keys = {key: value for key, value in SIZES[size][task].items() if key in ("image_size", "width", "x_hid")} | more
    torch.manual_seed(SEED)
    if task == "vision":
        return build_vision(model, form, n_classes=CLASSES[task], in_channels=3, **keys)
    vectors = torch.randn(SIZES[size][task]["words"], SIZES[size][task]["embedding_dim"]) * 0.4
    vectors[0] = 0.0
    return build_text(model, form, n_classes=CLASSES[task], vectors=vectors, **keys)


def al_model(model: str, size: str, **keys: Any) -> ALStack:
    """Return the AL form, in training mode; `keys`: settings that are not the defaults."""
    return local_model(model, size, "al", **keys)


def local_model(model: str, size: str, objective: str, **keys: Any) -> ALStack:
    """Return the form of an objective, in training mode; `keys`: settings that are not the defaults."""
    stack = _build(model, objective, size, lr=LR, **keys).train()
    assert isinstance(stack, ALStack)
    return stack


def bp_layers(model: str, size: str, **keys: Any) -> list[tuple[str, nn.Module]]:
    """Return the layers of the BP form by name, the head last, in training mode."""
    stack = _build(model, "bp", size, **keys).train()
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
            x = after(layer, x, lengths)
        return x


def after(layer: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return what one layer makes of `x`, without the lengths that it hands on."""
    out = layer(x if lengths is None else (x, lengths))
    features: Tensor = out[0] if isinstance(out, tuple) else out
    return features


def arguments(x: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a batch's input as (tensor, keyword arguments) for a `Part`."""
    return (x[0], {"lengths": x[1]}) if isinstance(x, tuple) else (x, {})


def make_batches(
    model: str, size: str, *, share: int = 1, part: int = 0, device: str | torch.device = "cpu", count: int = DISTINCT
) -> list[Batch]:
    """Return `count` batches of noise shaped as real data; of each, the `part`th of `share` equal parts."""
    task, samples = _task(model), batch_size(model, size)
    sizes = SIZES[size][task]
    made = torch.Generator().manual_seed(SEED)
    rows = slice(part * samples // share, (part + 1) * samples // share)
    batches: list[Batch] = []
    for _ in range(count):
        labels = torch.randint(CLASSES[task], (samples,), generator=made)[rows].to(device)
        if task == "vision":
            shape = samples, 3, sizes["image_size"], sizes["image_size"]
            batches.append((torch.randn(shape, generator=made)[rows].clone().to(device), labels))
            continue
        positions = sizes["positions"]
        lengths = torch.randint(positions // 4, positions + 1, (samples,), generator=made)
        tokens = torch.randint(1, sizes["words"], (samples, positions), generator=made)
        tokens = tokens.masked_fill(torch.arange(positions) >= lengths[:, None], 0)
        batches.append(((tokens[rows].to(device), lengths[rows].to(device)), labels))
    return batches
