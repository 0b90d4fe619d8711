"""A plug-in with five objectives, `one` to `five`: so that a command with many methods can be tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ALPackage import ALStack, LocalLayer
from models import Block, ObjectiveEntry, Settings, Training, register_objective


class Toy(Settings):
    """The settings of a toy."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits: another meaning, and another default, than AL's key of this name."""

    hidden_layers: Annotated[int, Field(ge=0)] | None = None
    """A key that may be null, and that no other objective has."""


class TextToy(Toy):
    """The same for texts."""

    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Divides the logits."""


class Loss(Settings):
    """Settings within settings."""

    weight: float = 1.0
    """Multiplies the loss."""

    name: Literal["sum", "mean"] = "mean"
    """How the loss of a batch is made of those of its samples."""


class NestedToy(Toy):
    """A toy whose settings have settings of their own."""

    loss: Loss = Loss()
    """The loss."""


class LocalClassifier(LocalLayer):
    """A layer that learns to classify by itself; the labels travel as they are."""

    loss_names = ("ce",)

    def __init__(self, block: Block, n_classes: int, training: Training, temperature: float) -> None:
        super().__init__()
        self.f, self.head, self.temperature = block.f, block.bridge(n_classes), temperature
        self.optimizer = torch.optim.SGD(self.parameters(), lr=training.lr)

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        x = self.f(x)
        return x, y, {"ce": F.cross_entropy(self.head(x) / self.temperature, y)}

    def hidden(self, x: Any) -> Any:
        return self.f(x)

    def readout(self, hidden: Any) -> Any:
        return self.head(hidden)

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"hidden": [self.f], "readout": [self.head], "decode": []}


def build(blocks: Sequence[Block], n_classes: int, settings: Toy, training: Training) -> ALStack:
    """Return a stack of local classifiers."""
    return ALStack({block.name: LocalClassifier(block, n_classes, training, settings.temperature) for block in blocks})


for name in ("one", "two", "three", "four", "five"):
    kinds: Any = {"two": {"vision": Toy, "text": TextToy}, "three": NestedToy, "four": Settings}.get(name, Toy)
    register_objective(
        ObjectiveEntry(
            name=name,
            title=name.capitalize(),
            settings=kinds,
            build=build if name != "four" else lambda blocks, n, _, training: build(blocks, n, Toy(), training),
        )
    )
