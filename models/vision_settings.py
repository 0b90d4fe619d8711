"""The settings of the vision models, and the names of their layers. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from .settings import Activation, CodeUnits, ModelSettings

#: How many of ResNet's eight basic blocks each of its five layers has; the first layer starts with the stem.
RESNET_SPLITS = {"strides": (1, 2, 2, 2, 1), "groups": (0, 2, 2, 2, 2)}


class VisionSettings(ModelSettings):
    """What every vision model can have."""

    #: What "auto" means for `bridge`: what the model was more accurate with (benchmarks/NOTES.md).
    best_bridge: ClassVar[str] = "pool"

    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Multiplies the number of channels of every layer."""

    enc_dim: CodeUnits = 256
    """Hidden units of the bridge."""

    act: Activation = "relu"
    """Activation function."""

    bridge: Literal["auto", "pool", "conv", "pool-conv", "deep", "flatten"] = "auto"
    """From a layer's map to the codes: `pool`: average pooling to 2x2, then linear layers; `conv`: a convolution before
    that; `pool-conv`: average pooling to 4x4 before the convolution; `deep`: convolutions with stride 2 down to 2x2;
    `flatten`: the whole map, then linear layers (the thesis' form, and large); `auto`: `pool` for VGG, `conv` for
    ResNet."""

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the bridge that is used."""
        return {"bridge": self.best_bridge if self.bridge == "auto" else self.bridge}


class VGGSettings(VisionSettings):
    """What VGG has of its own."""

    head_act: Literal["auto"] | Activation = "auto"
    """Activation function in the head of BP's VGG; `auto`: that of `act`."""


class ResNetSettings(VisionSettings):
    """What ResNet has of its own."""

    best_bridge: ClassVar[str] = "conv"

    cut: Literal["strides", "groups"] = "strides"
    """Where ResNet's layers end: `strides`: where the maps have just been halved; `groups`: after the stem and after
    each group of two blocks (as in the thesis)."""

    shortcut: Literal["pool", "stride"] = "pool"
    """What stands beside ResNet's convolutions where maps are halved: `pool`: the means of 2x2 positions, and every
    block starts out as its shortcut alone (the last normalization's weights are zero); `stride`: every second position
    (as in the thesis)."""


def vgg_layers(settings: VGGSettings) -> list[str]:
    """Return the names of VGG's layers."""
    return [f"conv_{number}" for number in range(1, 5)]


def resnet_layers(settings: ResNetSettings) -> list[str]:
    """Return the names of ResNet's layers."""
    return [f"layer_{number}" for number in range(1, len(RESNET_SPLITS[settings.cut]) + 1)]
