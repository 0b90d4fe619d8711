"""The published word vectors by name, as torchtext names them, and the file that each name stands for.

The configuration checks names with this, so nothing here may be slow to import.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..errors import DataError

NONE, GLOVE = "none", "glove"

_STANFORD = "https://nlp.stanford.edu/data/"
_FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/vectors-wiki/"
#: Collection -> its dimensions, and the archive that holds its files.
_COLLECTIONS = {
    "6B": ((50, 100, 200, 300), "glove.6B.zip"),
    "42B": ((300,), "glove.42B.300d.zip"),
    "840B": ((300,), "glove.840B.300d.zip"),
    "twitter.27B": ((25, 50, 100, 200), "glove.twitter.27B.zip"),
}
_LANGUAGE = re.compile(r"fasttext\.([a-z_]{2,12})\.300d", re.IGNORECASE)
# What tells a path from a misspelled name: a folder, or an ending.
_LIKE_A_PATH = re.compile(r"[/\\]|\.[A-Za-z]{2,5}$")


@dataclass(frozen=True)
class Published:
    """Word vectors that can be had from `url`: `file` in the data root, or the `archive` that holds it."""

    name: str
    dim: int
    file: str
    archive: str
    url: str


def _glove(collection: str, dim: int) -> Published:
    name, archive = f"glove.{collection}.{dim}d", _COLLECTIONS[collection][1]
    return Published(name, dim, f"{name}.txt", archive, _STANFORD + archive)


PUBLISHED = {
    found.name.casefold(): found
    for collection, (dims, _) in _COLLECTIONS.items()
    for found in (_glove(collection, dim) for dim in dims)
}

#: What `pretrained_model` may be, in words.
EXPECTED = (
    f'"{GLOVE}", "{NONE}", the path of a file of word vectors, or a name such as "glove.840B.300d", '
    '"glove.twitter.27B.100d" or "fasttext.en.300d"'
)


def published(name: str) -> Published | None:
    """Return the published vectors of this name, in any case."""
    name = name.removesuffix(".txt")
    if match := _LANGUAGE.fullmatch(name):
        file = f"wiki.{match[1].lower()}.vec"
        return Published(f"fasttext.{match[1].lower()}.300d", 300, file, f"{file}.gz", _FASTTEXT + file)
    return PUBLISHED.get(name.casefold())


def glove_6b(dim: int) -> Published:
    """Return the vectors that "glove" stands for; there may be none of this dimension."""
    return _glove("6B", dim)


def check_name(name: str) -> str:
    """Return the name as it is spelled, or a path as it is. Raises DataError for what can be neither."""
    if name.casefold() in (GLOVE, NONE):
        return name.casefold()
    if found := published(name):
        return found.name
    if not _LIKE_A_PATH.search(name) or "\0" in name:
        raise DataError(f"got {json.dumps(name)}; expected {EXPECTED}")
    return name
