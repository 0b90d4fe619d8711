"""The settings of the library's local objectives. Nothing here needs torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .settings import Settings

Temperature = Annotated[float, Field(gt=0)]


class ObjectiveSettings(Settings):
    """Base of the settings of the library's objectives."""

    objective: ClassVar[str]
    """Its name in the library."""


class ALSettings(ObjectiveSettings):
    """What Associated Learning's two losses and its class codes can be."""

    objective: ClassVar[str] = "al"

    association: Literal["mse", "cosine", "contrastive"] = "contrastive"
    """The associated loss: `contrastive`: cross-entropy over the codes of all classes; `mse`, `cosine`: distance to the
    code of the sample's own class."""

    temperature: Temperature = 0.2
    """Divides the similarities in the losses of the contrastive association: lower is sharper."""

    codes: Literal["linear", "tanh", "sigmoid"] = "linear"
    """What follows the linear maps of g, h and the bridge: `linear`: nothing, and h is the transpose of g; `tanh`,
    `sigmoid`: bounded codes, and decoders of their own."""

    auto_encoder: Literal["auto", "mse"] = "auto"
    """The loss of h(g(y)) against y: `auto`: cross-entropy over the classes in the first layer, then what suits the
    association; `mse`: squared distance in every layer."""


class TextALSettings(ALSettings):
    """The same for texts, with the temperature that suits them."""

    temperature: Temperature = 0.5
    """Divides the similarities in the losses of the contrastive association: lower is sharper."""


class CESettings(ObjectiveSettings):
    """What the classifiers of local cross-entropy can be."""

    objective: ClassVar[str] = "ce"

    depth: Annotated[int, Field(ge=1, le=3)] = 1
    """Linear layers with which the auxiliary network of a layer ends: 1: the model's bridge, to the classes; 2, 3: the
    bridge to the width of the codes, and one or two more."""


class SCLSettings(ObjectiveSettings):
    """What the codes of supervised contrastive learning can be."""

    objective: ClassVar[str] = "scl"

    projector: Literal["linear", "mlp"] = "linear"
    """From a layer's output to the codes that are compared: `linear`: the model's bridge; `mlp`: a rectifier and a
    linear layer more."""

    temperature: Temperature = 0.1
    """Divides the cosines between codes: lower is sharper."""
