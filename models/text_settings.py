"""The settings of the text models, and the names of their layers. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from .settings import Activation, ModelSettings, Share, Units


class TextSettings(ModelSettings):
    """What every text model can have."""

    x_hid: Units = 256
    """Hidden units of the LSTM (per direction) or of the Transformer's feed-forward part."""

    al_layers: Annotated[int, Field(ge=1, le=48)] = 3
    """AL layers after the embedding; BP has the same, and its head."""

    n_layers: Annotated[int, Field(ge=1, le=48)] = 1
    """LSTM or encoder layers within each AL layer: the network has `al_layers` times as many."""

    act: Activation = "tanh"
    """Activation function in the bridges."""

    bridge: Literal["linear", "hidden"] = "linear"
    """From a layer's pooled states to the codes: a `linear` layer, as in BP's head, or a `hidden` layer before it."""

    cut: Literal["apart", "joined"] = "apart"
    """Whether the embedding is a layer of its own (`apart`) or one with the layer that reads it (`joined`)."""

    dropout: Share = 0.3
    """Share of the activations that is dropped in training."""

    word_dropout: Share = 0.0
    """Share of the words whose vectors are dropped whole in training."""

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """Say what `n_layers` means where the user may think of what it meant in earlier versions."""
        if self.n_layers == 1 or "al_layers" in self.model_fields_set:
            return []
        return [
            f"n_layers={self.n_layers} is the number of LSTM or encoder layers within each AL layer, and "
            f"al_layers={self.al_layers} the number of AL layers after the embedding, which n_layers meant in earlier "
            f"versions: give al_layers too (for the earlier meaning, al_layers={self.n_layers} and n_layers=1)"
        ]


class LSTMSettings(TextSettings):
    """What the LSTM has of its own."""

    reading: Literal["mean", "last"] = "mean"
    """What BP's head and AL's bridges read of the LSTM's states: their mean, or the last state of each direction."""


class TransformerSettings(TextSettings):
    """What the Transformer has of its own."""

    n_heads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Attention heads; `auto`: 6, or the largest number below it that divides the model's width."""

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the number of heads, for a model as wide as the word vectors.

        Raises ValueError where a given number does not divide the width.
        """
        width = int(config["embedding_dim"])
        if self.n_heads == "auto":
            return {"n_heads": max(heads for heads in range(1, 7) if width % heads == 0)}
        if width % self.n_heads:
            divisors = ", ".join(str(heads) for heads in range(1, min(width, 16) + 1) if width % heads == 0)
            raise ValueError(
                f"n_heads: got {self.n_heads}; expected a divisor of the model's width of {width}: "
                f'give one of {divisors}, or "auto"'
            )
        return {"n_heads": self.n_heads}

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """Say so where "auto" did not come to 6 heads."""
        notes, heads = super().notes(config), self.resolve(config)["n_heads"]
        if self.n_heads != "auto" or heads == 6:
            return notes
        return [*notes, f"n_heads is {heads}: 6 does not divide the model's width of {config['embedding_dim']}"]


def lstm_layers(settings: LSTMSettings) -> list[str]:
    """Return the names of the LSTM's layers."""
    return _layers("lstm", settings)


def transformer_layers(settings: TransformerSettings) -> list[str]:
    """Return the names of the Transformer's layers."""
    return _layers("encoder", settings)


def _layers(kind: str, settings: TextSettings) -> list[str]:
    embedding = ["embedding"] if settings.cut == "apart" else []
    return [*embedding, *(f"{kind}_{number}" for number in range(1, settings.al_layers + 1))]
