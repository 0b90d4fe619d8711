"""Numbers that authors' own code has given, with their source, call and tensors; nothing here runs that code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Any]:
    """Return a file of them; its lists of numbers are tensors, float64 or int64."""
    found: dict[str, Any] = _tensors(json.loads((FOLDER / f"{name}.json").read_text()))
    return found


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensors(one) for key, one in value.items()}
    return torch.tensor(value, dtype=None if _whole(value) else torch.float64) if isinstance(value, list) else value


def _whole(value: Any) -> bool:
    return all(map(_whole, value)) if isinstance(value, list) else isinstance(value, int)


def waves(*shape: int, number: int = 0) -> Tensor:
    """Return numbers between -1 and 1 without a pattern, float64, that are the same on every machine."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.1 * i * i + 1.7 * i + number).reshape(shape)
