"""Read `--set key=value` as the user means it, whatever the shell has done to quotation marks and spaces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..errors import ConfigError
from .json_file import refuse_constant, unique

#: Numbers that JSON does not know, and that people write: .5, 1., +3, 007.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Override:
    """A key, or a part of the object that a key has, and its new value."""

    text: str
    """As it was typed."""
    path: tuple[str, ...]
    """The key, and the names that lead from its object to the part."""
    value: Any

    @property
    def key(self) -> str:
        """The key at the top level."""
        return self.path[0]

    def laid_over(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all keys with the new one among them; nothing else in an object changes."""
        return _laid_over(values, self.path, self.value)


def read_override(text: str, known: type[BaseModel]) -> Override:
    """Return what a `key=value` or `key.part=value` says; `known` has the keys as fields. Raises ConfigError.

    The value is read as JSON or, where it is not JSON, as a number or taken as text.
    """
    key, equals, value = _bare(text).partition("=")
    path = split_key(key.strip(), known)
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: expected key=value, for example --set epochs=3")
    owner = settings_at(known, path[:-1])
    field = owner.model_fields.get(path[-1]) if owner else None
    return Override(text, path, _value(text, _bare(value), field is not None and field.annotation is str))


def split_key(text: str, known: type[BaseModel]) -> tuple[str, ...]:
    """Return the names that a key with dots consists of; the name of an objective or a model may have dots itself."""
    names = [name for name in known.model_fields if text == name or text.startswith(f"{name}.")]
    name = max(names, key=len, default=text.partition(".")[0])
    if text == name:
        return (name,)
    inner, rest = settings_at(known, [name]), text[len(name) + 1 :]
    return (name, *(split_key(rest, inner) if inner else [rest]))


def settings_at(kind: type[BaseModel], path: Sequence[object]) -> type[BaseModel] | None:
    """Return the class of the settings to which the path leads from `kind`; None where it leads to none."""
    for name in path:
        field = kind.model_fields.get(str(name))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        kind = inner
    return kind


def _laid_over(values: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    before = values if isinstance(values, Mapping) else {}
    return {**before, first: _laid_over(before.get(first), rest, value) if rest else value}


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
