"""Turn the blocks of a network into its AL form or its BP form. Both train the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ALPackage import ALStack
from ALPackage.devices import resolve
from ALPackage.nested import to_device
from ALPackage.objectives.by_name import make_objective, settings_of
from ALPackage.objectives.part import Part, walked

from .blocks import Block
from .objective_settings import ObjectiveSettings
from .optimizer import adamw
from .shapes import Training


def build_local(blocks: Sequence[Block], n_classes: int, settings: ObjectiveSettings, training: Training) -> ALStack:
    """Return a network as a stack of one of the library's objectives: one layer per block, and no head."""
    name = settings.objective
    shared = {"code_dim": training.code_dim, "label_smoothing": training.label_smoothing}
    of_training = {key: value for key, value in shared.items() if key in settings_of(name)}
    objective = make_objective(name, **settings.model_dump(), **of_training)
    network = [Part(block.name, block.f, block.bridge) for block in blocks]
    if objective.needs_example:
        network = walked(network, training.example)
    optimizer = partial(adamw, weight_decay=training.weight_decay)
    return ALStack(objective.layers(network, n_classes, training.lr, optimizer), target=objective.target(n_classes))


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
