"""VGG, ResNet, LSTM and Transformer, each in an AL and a BP form made of the same blocks."""

from .assemble import BPModel, build_al, parameter_counts
from .build import DEFAULT_BRIDGE, TEXT_MODELS, VISION_MODELS, build_text, build_vision
from .optimizer import adamw

__all__ = [
    "DEFAULT_BRIDGE",
    "TEXT_MODELS",
    "VISION_MODELS",
    "BPModel",
    "adamw",
    "build_al",
    "build_text",
    "build_vision",
    "parameter_counts",
]
