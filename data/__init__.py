"""The data sets by name, and the two calls that load them: `load_vision` and `load_text`.

What needs torch is imported when it is first asked for, so that `--list` and a wrong name are answered at once; a
vision run need not import pandas, nor a text run torchvision.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .registry import TEXT, VISION, canonical, match

if TYPE_CHECKING:
    from .dataset import Dataset, Split
    from .text.load import load_text
    from .vision.load import load_vision

__all__ = ["TEXT", "VISION", "DataError", "Dataset", "Split", "canonical", "load_text", "load_vision", "match"]

_HOMES = {"Dataset": ".dataset", "Split": ".dataset", "load_text": ".text.load", "load_vision": ".vision.load"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
