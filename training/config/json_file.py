"""Read an object from a JSON file that people edit by hand, and tell them what is wrong with it, where, in their words.

Windows editors and shells write a byte order mark or UTF-16; both are read. What JSON's reader would let pass (a key
that is there twice, NaN) is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from models.settings import shown

from ..errors import ConfigError, reason

EXAMPLE = '{"epochs": 20}'
#: A string, what a comment or a constant begins with, or a sign that opens or closes a value.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b|[{}\[\]]', re.DOTALL)
_COMMENT = re.compile(r"//|/\*|#")
_TWICE = '"{}" is there twice; leave one of them out'
_NO_NUMBER = "{} is not a number in JSON; give a finite number"
_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that the file holds. Raises ConfigError: file, line and column, and how to mend it."""
    text = _text(path)
    try:
        values = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: {_explain(text, error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; expected an object of plain values") from None
    except ValueError:
        raise ConfigError(f"{path}: holds a number of thousands of digits; give a shorter one") from None
    except ConfigError:
        raise ConfigError(f"{path}: {_refused(text)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {shown(values)}; expected an object such as {EXAMPLE}")
    return values


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of an object as a dict. Raises ConfigError for a key that is there twice."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(_TWICE.format(key))
        values[key] = value
    return values


def refuse_constant(constant: str) -> None:
    """Raise ConfigError for NaN, Infinity or -Infinity."""
    raise ConfigError(_NO_NUMBER.format(constant))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name another with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({reason(error)}); name a JSON file with --config") from None
    try:
        # UTF-8 or, as PowerShell's `>` writes it, UTF-16: by the byte order mark or by where the zeros are.
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise ConfigError(
            f"{path}: line 1, column 1: broken JSON: the file is empty; expected an object such as {EXAMPLE}"
        )
    return text


def _explain(text: str, error: json.JSONDecodeError) -> str:
    """Put a mistake in the notation into words: its place, what is there, and what to write instead."""
    at, advice = error.pos, f"{error.msg[:1].lower()}{error.msg[1:]}"
    rest = text[at:].lstrip()
    at = len(text) - len(rest)
    begin = text.lstrip()
    before = text[:at].rstrip()
    if not begin.startswith(("{", "[")) and not _COMMENT.match(begin):
        at = len(text) - len(begin)
        advice = f"the file begins with {shown(begin.splitlines()[0])}; expected an object such as {EXAMPLE}"
    elif error.msg.startswith(("Invalid \\", "Invalid control")):
        advice = _inside_a_text(text, error)
        at = error.pos
    elif not rest:
        advice = "the file ends too early; close what is open with } or ]"
    elif _COMMENT.match(rest):
        advice = "a comment, and JSON has none; take it out"
    elif rest[0] in "}]" and before.endswith(","):
        at = len(before) - 1
        advice = f"a comma before {rest[0]}, after which nothing follows; take it out"
    elif before.endswith(",") and rest[0] == ",":
        advice = "one comma too many; take it out"
    elif rest[0] in "'‘’“”„`":
        advice = f'{rest[0]} is no quotation mark in JSON; write " instead'
    elif error.msg.startswith("Unterminated"):
        advice = 'a text that does not end; put a " behind it'
    elif error.msg.startswith("Extra data"):
        advice = "there is more behind the end of the object; take it out"
    elif error.msg.startswith("Expecting ','"):
        advice = "a comma is missing before this"
    elif error.msg.startswith("Expecting ':'"):
        advice = "a colon is missing between the key and its value"
    elif word := re.match(r"[^\s,:{}\[\]\"]+", rest):
        advice = _unquoted(word[0])
    return f"{_place(text, at)}: broken JSON: {advice}"


def _inside_a_text(text: str, error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Invalid \\"):
        return "a single \\ in a text; write \\\\, or / in a path"
    what = "a line that ends" if text[error.pos] in "\r\n" else "a tab or another control character"
    return f'{what} within a text; is a " missing before it?'


def _unquoted(word: str) -> str:
    if word in _WORDS:
        return f"{word} is Python; write {_WORDS[word]}"
    if re.match(r"[+-]?[.\d]", word):
        return f"{word} is no number in JSON; write it as in 0.5, 3 or 1e-4"
    return f'{word} has no quotation marks; write "{word}"'


def _place(text: str, at: int) -> str:
    """Return where the character number `at` stands, as editors count lines and columns."""
    lines = text[:at].replace("\r\n", "\n").split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _refused(text: str) -> str:
    """Return where the first NaN is, or the first key that its object has already; JSON's reader names no place."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "{[":
            objects.append(set())
        elif word in "}]":
            objects.pop()
        elif word[0] != '"':
            return f"{_place(text, token.start())}: {_NO_NUMBER.format(word)}"
        elif text[token.end() :].lstrip().startswith(":"):
            key = json.loads(word)
            if key in objects[-1]:
                return f"{_place(text, token.start())}: {_TWICE.format(key)}"
            objects[-1].add(key)
    raise AssertionError("the reader has refused something else")
