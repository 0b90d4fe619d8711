"""The data sets by name, and the two calls that load them: `load_vision` and `load_text`.

Names that need torch are imported when they are first used. So `--list` and a misspelled name are answered at once,
a vision run does not import pandas, and a text run does not import torchvision.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .registry import TEXT, VISION, DatasetEntry, canonical, entry, match, register_dataset
from .resource import RemoteFile, Resource

if TYPE_CHECKING:
    from .dataset import Dataset, Split
    from .text.load import load_text
    from .text.source import Corpus, Source
    from .vision.images import Images
    from .vision.load import load_vision

__all__ = [
    "TEXT",
    "VISION",
    "Corpus",
    "DataError",
    "Dataset",
    "DatasetEntry",
    "Images",
    "RemoteFile",
    "Resource",
    "Source",
    "Split",
    "canonical",
    "entry",
    "load_text",
    "load_vision",
    "match",
    "register_dataset",
]

_HOMES = {
    "Corpus": ".text.source",
    "Dataset": ".dataset",
    "Images": ".vision.images",
    "Source": ".text.source",
    "Split": ".dataset",
    "load_text": ".text.load",
    "load_vision": ".vision.load",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
