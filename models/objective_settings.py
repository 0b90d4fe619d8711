"""The settings of the library's local objectives. Nothing here needs torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .settings import Settings

Temperature = Annotated[float, Field(gt=0)]
Depth = Annotated[int, Field(ge=1, le=3)]
Weight = Annotated[float, Field(ge=0)]


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

    depth: Depth = 1
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


class PredSimSettings(ObjectiveSettings):
    """What prediction and similarity matching can be."""

    objective: ClassVar[str] = "predsim"

    beta: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of the similarity loss; the cross-entropy of the layer's classifier has the rest."""


class DeInfoSettings(ObjectiveSettings):
    """What the terms of DeInfoReg can weigh."""

    objective: ClassVar[str] = "deinfo"

    variance: Weight = 1.0
    """Weight of the term that has every unit of a projection vary over the batch."""

    invariance: Weight = 1.0
    """Weight of the term that has projections be as alike as their labels."""

    covariance: Weight = 1.0
    """Weight of the term that keeps the units of a projection from repeating one another."""

    depth: Depth = 1
    """Linear layers with which a projection ends: 1: the model's bridge; 2, 3: one or two more."""


class InfoProSettings(ObjectiveSettings):
    """What the two losses of InfoPro can weigh."""

    objective: ClassVar[str] = "infopro"

    reconstruction: Weight = 0.5
    """Weight of the squared difference between the input and what a layer's decoder makes of its output."""

    classification: Weight = 1.0
    """Weight of the cross-entropy beside it; it is 1 in the last layer, which reconstructs nothing."""

    depth: Depth = 1
    """Linear layers with which the auxiliary network of a layer ends, as for `ce`."""
