"""Turn the blocks of a network into its AL form or its BP form. Both train the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, ENC, ALStack
from ALPackage.devices import resolve
from ALPackage.nested import to_device
from ALPackage.objectives.association import Association, Reconstruction
from ALPackage.objectives.classification import ClassifierAL
from ALPackage.objectives.codes import OnCodes, OneHot, UnitNorm

from .al_settings import ALSettings
from .blocks import Block, activation
from .optimizer import adamw
from .shapes import Training


def build_al(blocks: Sequence[Block], n_classes: int, settings: ALSettings, training: Training) -> ALStack:
    """Return the AL stack of a network: one AL layer per block, and no head.

    With the contrastive association, codes have unit length on both sides, b's and g's.
    """
    codes, code_dim = settings.codes, training.code_dim
    contrastive = settings.association == "contrastive"
    suited = settings.auto_encoder == "auto"
    optimizer = partial(adamw, weight_decay=training.weight_decay)

    def ending() -> list[nn.Module]:
        bounded = [] if codes == "linear" else [activation(codes)]
        return [*bounded, UnitNorm()] if contrastive else bounded

    # Initial weights are drawn as modules are made: bridge, then g and h, block by block. In another order the same
    # seed would give another network.
    layers: dict[str, ClassifierAL] = {}
    below = n_classes
    for block in blocks:
        bridge = nn.Sequential(block.bridge(code_dim), *ending())
        encoder, decoder = _code_pair(below, code_dim, codes)
        g = OnCodes(nn.Sequential(encoder, *ending()))
        if layers:
            h = OnCodes(nn.Sequential(decoder, *ending()))
            kind = "contrastive" if contrastive and suited else "mse"
        elif suited:
            # The first decoder's rows are logits over the classes: nothing may bound them.
            h, kind = OnCodes(decoder), "classes"
        else:
            h, kind = OnCodes(nn.Sequential(decoder, *ending())), "mse"
        reconstruction = Reconstruction(kind, settings.temperature if contrastive else 1.0, unit=contrastive)
        associated = Association(settings.association, settings.temperature, training.label_smoothing, unit=contrastive)
        enc, ae = ENC(block.f, bridge, associated), AE(g, h, reconstruction)
        layers[block.name] = ClassifierAL(enc, ae, training.lr, optimizer)
        below = code_dim
    return ALStack(layers, target=OneHot(n_classes))


class Transposed(nn.Module):
    """Decode with the transpose of an encoder, a linear map without bias: codes (..., d_i) -> (..., d_{i-1})."""

    def __init__(self, encoder: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, code: Tensor) -> Tensor:
        """Return code @ W for the encoder's W (d_i, d_{i-1}), unbounded."""
        return F.linear(code, self.encoder.weight.T)


def _code_pair(below: int, code_dim: int, codes: Literal["linear", "tanh", "sigmoid"]) -> tuple[nn.Module, nn.Module]:
    """Return the linear parts of g and h: an orthogonal map and its transpose, so that h decodes what g encodes.

    The auto-encoder loss shows h the exact codes, but nothing around them, which is where the bridge's outputs lie. A
    transpose ranks the classes by the dot product of a code with theirs, for any code: that is by the cosine as long
    as the norms of the classes' codes are alike, and they start at 1. A decoder that learns freely need not rank them
    so (benchmarks/NOTES.md). With linear codes, h stays the transpose of g; with bounded codes, which a transpose
    cannot decode, h only starts as it.
    """
    if codes == "linear":
        tied = nn.Linear(below, code_dim, bias=False)
        nn.init.orthogonal_(tied.weight)
        if below > code_dim:  # then the rows are orthonormal, not the columns, and the classes differ in norm
            with torch.no_grad():
                tied.weight.div_(tied.weight.norm(dim=0))
        return tied, Transposed(tied)
    encoder, decoder = nn.Linear(below, code_dim), nn.Linear(code_dim, below)
    nn.init.orthogonal_(encoder.weight)
    with torch.no_grad():
        decoder.weight.copy_(encoder.weight.T)
    nn.init.zeros_(encoder.bias)
    nn.init.zeros_(decoder.bias)
    return encoder, decoder


class BPModel(nn.Module):
    """The BP form: the same blocks and a head, trained end to end, with naive model parallelism over a device list.

    `layers`: the blocks and the head by name. Returns logits (B, C) on the last layer's device.
    """

    def __init__(self, blocks: Sequence[Block], head: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({**{block.name: block.f for block in blocks}, "head": head})
        self.devices = [torch.device("cpu")] * len(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def set_device(self, devices: str | list[str]) -> list[torch.device]:
        """Place the layers: "auto" (all on the first GPU, or on the CPU) or one device name per layer."""
        if devices == "auto":
            self.devices = [torch.device("cuda:0" if torch.cuda.is_available() else "cpu")] * len(self)
        else:
            self.devices = resolve(devices, len(self))
        for layer, device in zip(self.layers.values(), self.devices, strict=True):
            layer.to(device)
        return self.devices

    def forward(self, x: Any) -> Any:
        """Return the logits (B, C) of a batch of inputs."""
        for layer, device in zip(self.layers.values(), self.devices, strict=True):
            x = layer(to_device(x, device))
        return x


def parameter_counts(model: ALStack | BPModel) -> tuple[int, int]:
    """Return how many parameters are used in training, and how many in inference at full depth."""
    trained = sum(p.numel() for p in model.parameters())
    if isinstance(model, BPModel):
        return trained, trained
    used = [module for layer in model for path in ("hidden", "decode") for module in layer.parts()[path]]
    used += model[-1].parts()["readout"]
    return trained, sum(p.numel() for module in used for p in module.parameters())
