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
#: Words of Python, and what they are in JSON.
IN_JSON = {"True": "true", "False": "false", "None": "null"}


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
    at = error.pos + len(text[error.pos :]) - len(text[error.pos :].lstrip())
    rest, before, begin = text[at:], text[:at].rstrip(), text.lstrip()
    if not begin.startswith("{") and not _COMMENT.match(begin):
        at = len(text) - len(begin)
        advice = f"the file begins with {shown(begin.splitlines()[0])}; expected an object such as {EXAMPLE}"
    elif error.msg.startswith(("Invalid \\", "Invalid control")):
        at, advice = error.pos, _inside_a_text(text, error)
    elif not rest:
        advice = "the file ends too early; close what is open with } or ]"
    elif _COMMENT.match(rest):
        advice = "this is a comment, which JSON does not have; take it out"
    elif rest[0] in ",}]" and before.endswith(","):
        at = len(before) - 1
        advice = f"there is a comma before {'another' if rest[0] == ',' else f'the closing {rest[0]}'}; take it out"
    elif rest[0] in "'‘’“”„`":
        advice = f'{rest[0]} is not a quotation mark in JSON; write " instead'
    elif error.msg.startswith("Unterminated"):
        advice = 'this text does not end; put a " after it'
    elif error.msg.startswith("Extra data"):
        advice = "there is more text after the end of the object; take it out"
    else:
        advice = _unexpected(text[:at], rest, error.msg)
    return f"{_place(text, at)}: broken JSON: {advice}"


def _inside_a_text(text: str, error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Invalid \\"):
        return "there is a single \\ in a text; write \\\\, or / in a path"
    what = "the line ends" if text[error.pos] in "\r\n" else "there is a tab or another control character"
    return f'{what} within a text; is a " missing before it?'


def _unexpected(before: str, rest: str, problem: str) -> str:
    """Say what is wrong where `rest` begins; `problem` is what JSON's reader says."""
    word = re.match(r"[^\s,:{}\[\]\"]*", rest)[0]  # type: ignore[index]
    # The reader takes 0x10 for a 0 that something follows.
    number = re.search(r"(?<![\w\"])[+-]?\d[\w.]*$", before)
    if re.search(r"\d,$", before) and word.isdecimal():
        return "there is a comma within a number; write a point, as in 0.5"
    if (number and word) or (problem == "Expecting value" and re.match(r"[+-]?[.\d]", word)):
        return f"{number[0] if number else ''}{word} is not a number in JSON; write it as in 0.5, 3 or 1e-4"
    if problem.startswith("Expecting ','"):
        return "a comma is missing before this"
    if problem.startswith("Expecting ':'"):
        return "a colon is missing between the key and its value"
    if word in IN_JSON:
        return f"{word} is Python; write {IN_JSON[word]}"
    if word:
        return f'{word} has no quotation marks; write "{word}"'
    return "a value is missing before this" if problem == "Expecting value" else "a key is missing before this"


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
