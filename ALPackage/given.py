"""Numbers and words that somebody gave: read whatever library they come from, and refused in one line."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any


def whole_number(value: Any) -> int | None:
    """Return a whole number of any library as Python's; None for anything else, and for a truth value."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):
        return None


def number(value: Any) -> float | None:
    """Return a number of any library as Python's; None for anything else, and for a truth value or digits in a text."""
    if isinstance(value, (bool, str, bytes, bytearray)) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # an array of several
        return None


def check_whole(name: str, value: Any, *, remark: str = "") -> None:
    """Raise ValueError for what is not a whole number of at least 1. `remark` ends the message."""
    whole = whole_number(value)
    if whole is None or whole < 1:
        raise ValueError(f"{name}: got {value!r}; expected a whole number of at least 1{remark}")


def check_number(name: str, value: Any, fits: Callable[[float], bool], expected: str) -> None:
    """Raise ValueError for what is not a number that fits; `expected` says which do."""
    found = number(value)
    if found is None or not fits(found):
        raise ValueError(f"{name}: got {value!r}; expected {expected}")


def check_word(name: str, value: Any, words: Collection[str]) -> None:
    """Raise ValueError for what is none of the words."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name}: got {value!r}; expected one of {', '.join(words)}")
