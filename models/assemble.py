"""Turn the blocks of a network into its AL form or its BP form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from ALPackage.devices import resolve
from ALPackage.nested import to_device
from ALPackage.objectives.association import Association, Reconstruction
from ALPackage.objectives.codes import OnCodes, OneHot, UnitNorm

from .blocks import Block, activation
from .optimizer import adamw

CODES = ("linear", "tanh", "sigmoid")
AUTO_ENCODERS = ("auto", "mse")


def build_al(
    blocks: Sequence[Block],
    n_classes: int,
    *,
    code_dim: int,
    association: str,
    temperature: float,
    lr: float,
    weight_decay: float,
    label_smoothing: float = 0.0,
    codes: str = "linear",
    auto_encoder: str = "auto",
) -> ALStack:
    """Return the AL stack of a network: one AL layer per block, and no head.

    `code_dim`: width of the class codes of every layer. `codes`: what follows the linear map of g, of h and of the
    bridge: "linear", nothing, and h is the transpose of g, which ranks the classes as their codes do; or "tanh" or
    "sigmoid", as in the thesis. With the contrastive association codes get unit length on both sides, b's and g's.
    `auto_encoder`: the loss of h(g(y)) against y: "auto", contrastive where the association is and else "mse", but
    always cross-entropy over the classes in the first layer; or "mse" in all. `label_smoothing`: of the association.
    """
    if codes not in CODES:
        raise ValueError(f"codes: got {codes!r}; expected one of {', '.join(CODES)}")
    if auto_encoder not in AUTO_ENCODERS:
        raise ValueError(f"auto_encoder: got {auto_encoder!r}; expected one of {', '.join(AUTO_ENCODERS)}")
    contrastive = association == "contrastive"
    optimizer = partial(adamw, weight_decay=weight_decay)

    def ending() -> list[nn.Module]:
        bounded = [] if codes == "linear" else [activation(codes)]
        return [*bounded, UnitNorm()] if contrastive else bounded

    layers: dict[str, AL] = {}
    below = n_classes
    for block in blocks:
        bridge = nn.Sequential(block.bridge(code_dim), *ending())
        encoder, decoder = _code_pair(below, code_dim, codes)
        g = OnCodes(nn.Sequential(encoder, *ending()))
        if layers:
            h = OnCodes(nn.Sequential(decoder, *ending()))
            kind = "contrastive" if contrastive and auto_encoder == "auto" else "mse"
        elif auto_encoder == "auto":
            # The first decoder's rows are logits over the classes: nothing may bound them.
            h, kind = OnCodes(decoder), "classes"
        else:
            h, kind = OnCodes(nn.Sequential(decoder, *ending())), "mse"
        reconstruction = Reconstruction(kind, temperature if contrastive else 1.0)
        associated = Association(association, temperature, label_smoothing)
        layers[block.name] = AL(ENC(block.f, bridge, associated), AE(g, h, reconstruction), lr, optimizer)
        below = code_dim
    return ALStack(layers, target=OneHot(n_classes))


class Transposed(nn.Module):
    """Decode by the transpose of an encoder, a linear map without offsets: codes (..., d_i) -> (..., d_{i-1})."""

    def __init__(self, encoder: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, code: Tensor) -> Tensor:
        """Return code @ W for the encoder's W (d_i, d_{i-1}), unbounded."""
        return F.linear(code, self.encoder.weight.T)


def _code_pair(below: int, code_dim: int, codes: str) -> tuple[nn.Module, nn.Module]:
    """Return the linear parts of g and h, so that h decodes g: orthogonal, and its transpose.

    The auto-encoder loss shows h the exact codes and nothing around them, where the bridge's outputs lie. A transpose
    ranks the classes by the dot product of any code with theirs, that is by the cosine as long as their norms are
    alike, and they start at 1; a decoder that is free to learn need not (benchmarks/NOTES.md). Linear codes are tied
    so for good; between bounded ones, which no transpose decodes, it is only the start.
    """
    if codes == "linear":
        tied = nn.Linear(below, code_dim, bias=False)
        nn.init.orthogonal_(tied.weight)
        if below > code_dim:  # then it is the rows that are orthonormal, and the classes would differ in norm
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
    """The BP form: the same blocks, then a head, trained end to end; naive model parallel over its device list.

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
    """Return the number of parameters used in training and in (full-depth) inference."""
    trained = sum(p.numel() for p in model.parameters())
    if isinstance(model, BPModel):
        return trained, trained
    used = [module for layer in model for path in ("hidden", "decode") for module in layer.parts()[path]]
    used += model[-1].parts()["readout"]
    return trained, sum(p.numel() for module in used for p in module.parameters())
