"""The models by name, each in a BP form and a local form made of the same blocks, and how to add one.

Names that need torch are imported when they are first used, so that `--help`, `--list` and a misspelled key are
answered at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import ModelEntry, ObjectiveEntry, method_names, model_names, register_model, register_objective
from .settings import ModelSettings, Settings
from .shapes import ImageShape, TextShape, Training
from .text_settings import TextSettings
from .vision_settings import VisionSettings

if TYPE_CHECKING:
    from .assemble import BPModel, build_local, parameter_counts
    from .blocks import Block
    from .build import build_model, build_text, build_vision
    from .optimizer import adamw

__all__ = [
    "BPModel",
    "Block",
    "ImageShape",
    "ModelEntry",
    "ModelSettings",
    "ObjectiveEntry",
    "Settings",
    "TextSettings",
    "TextShape",
    "Training",
    "VisionSettings",
    "adamw",
    "build_local",
    "build_model",
    "build_text",
    "build_vision",
    "method_names",
    "model_names",
    "parameter_counts",
    "register_model",
    "register_objective",
]

_HOMES = {
    "BPModel": ".assemble",
    "Block": ".blocks",
    "adamw": ".optimizer",
    "build_local": ".assemble",
    "build_model": ".build",
    "build_text": ".build",
    "build_vision": ".build",
    "parameter_counts": ".assemble",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
