"""Read `--set key=value` as the user means it, whatever the shell has done to quotation marks and spaces."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..errors import ConfigError
from .json_file import refuse_constant, unique

#: Numbers that JSON does not know, and that people write: .5, 1., +3, 007.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Override:
    """A key, or the part of an object that a key has, and its new value."""

    text: str
    """As it was typed."""
    key: str
    part: str | None
    value: Any

    def laid_over(self, before: Any) -> Any:
        """Return the new value of the key, which has the value `before`."""
        if self.part is None:
            return self.value
        return {**(before if isinstance(before, dict) else {}), self.part: self.value}


def read_override(text: str, known: type[BaseModel]) -> Override:
    """Return what a `key=value` or `key.part=value` says; `known` has the keys as fields. Raises ConfigError.

    The value is read as JSON or, where it is not JSON, as a number or taken as text.
    """
    key, equals, value = _bare(text).partition("=")
    key, dot, part = key.strip().partition(".")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected key=value, for example --set epochs=3")
    wants_text = key in known.model_fields and known.model_fields[key].annotation is str
    return Override(text, key, part if dot else None, _value(text, _bare(value), wants_text))


def _bare(text: str) -> str:
    """Return the text without spaces around it, and without the single quotes that Windows' cmd.exe leaves there."""
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == "'" else text


def _value(override: str, text: str, wants_text: bool) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        value = _number(text)
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from None
    # A folder may be called 2028.
    return text if wants_text and type(value) in (int, float) else value


def _number(text: str) -> Any:
    """Return the number that the text stands for, or the text."""
    if len(text) > 30 or not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdecimal() else float(text)
