"""A stack that grows while it trains: the keys, and which layers train in which epoch. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from pydantic import Field

from models.settings import Settings

from ..errors import ConfigError


class GrowthKeys(Settings):
    """How a stack of local layers grows."""

    section: ClassVar[str] = "training"

    grow: Annotated[
        list[Annotated[int, Field(ge=1)]] | None,
        Field(
            json_schema_extra={"expected": "a list of numbers of epochs such as [2, 2, 2, 2], each at least 1, or null"}
        ),
    ] = None
    """For how many epochs each layer of AL, or of another local objective, is the newest: the first one trains alone,
    then the second one is added, and so on. After that, all train alike. null: all layers from the first epoch on."""

    grow_lr: Annotated[float, Field(ge=0, le=1)] = 1.0
    """With `grow`: what the layers before the newest one take of the learning rate; 0 freezes them."""


class Growing(Protocol):
    """What is asked of a configuration here."""

    @property
    def grow(self) -> list[int] | None:
        """The key of this name."""

    @property
    def grow_lr(self) -> float:
        """The key of this name."""

    @property
    def epochs(self) -> int:
        """The key of this name."""


@dataclass(frozen=True)
class Stage:
    """What trains in some epochs: the first `layers` layers, those before the newest one with `earlier` of the rate."""

    layers: int
    earlier: float = 1.0

    def factor(self, layer: int) -> float:
        """Return what a layer, counted from 1, takes of the learning rate; 0: it is frozen."""
        return self.earlier if layer < self.layers else 1.0

    @property
    def freezes(self) -> bool:
        """Whether there are frozen layers."""
        return self.layers > 1 and self.earlier == 0


def stage_at(config: Growing, layers: int, epoch: int) -> Stage:
    """Return what trains in an epoch of a stack that has this many layers in the end."""
    end = 0
    for number, epochs in enumerate(config.grow or (), start=1):
        end += epochs
        if epoch <= end:
            return Stage(number, config.grow_lr)
    return Stage(layers)


def check_growth(config: Growing, layers: int | None, title: str) -> None:
    """Raise ConfigError where the keys do not go together, or with the layers that `title` has, where it is known."""
    if config.grow is None:
        if config.grow_lr != 1:
            raise ConfigError(
                f"grow_lr: got {config.grow_lr:g}, but without grow no layer is added later; set grow too, or leave "
                "grow_lr at 1"
            )
        return
    if layers is not None and len(config.grow) != layers:
        entries = "1 entry" if len(config.grow) == 1 else f"{len(config.grow)} entries"
        raise ConfigError(f"grow has {entries}, {title} has {layers} layer{'s' * (layers > 1)}; give {layers}, or null")
    if sum(config.grow) > config.epochs:
        raise ConfigError(
            f"grow: its epochs are {sum(config.grow)} in all; expected at most epochs, which is {config.epochs}"
        )
    if getattr(config, "compile", False) and config.grow_lr == 0 and layers != 1:
        raise ConfigError(
            "grow_lr: got 0 with compile; a frozen layer would have to be compiled once more while others train: set "
            "compile to false, or grow_lr above 0"
        )


def growth_notes(config: Growing, method: str, layers: int) -> list[str]:
    """Return what the reader of the figures should know."""
    if config.grow is None:
        return []
    if method == "bp":
        return ["grow: BP trains all layers from the first epoch on"]
    begins = [1 + sum(config.grow[:number]) for number in range(layers)]
    told = [f"{number} from epoch {epoch}" for number, epoch in enumerate(begins[1:], start=2)]
    parts = [", ".join(["the stack has 1 layer from epoch 1", *told])]
    if layers > 1 and config.grow_lr != 1:
        share = f"take {config.grow_lr:g} of the learning rate" if config.grow_lr else "are frozen, in evaluation mode"
        parts.append(f"those before the newest one {share}")
        if (grown := sum(config.grow)) < config.epochs:
            parts.append(f"from epoch {grown + 1} on, all train alike")
    return [
        f"grow: {'; '.join(parts)}",
        "grow: the epoch that is reported, and how the workers were used, are those of the stack with all layers",
    ]
