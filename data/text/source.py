"""What the loader of a text data set returns: a source, which says what the text depends on before any is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Document = tuple[str, int]
"""A text and its label."""


@dataclass(frozen=True)
class Corpus:
    """The documents of a data set with labels in [0, classes), and notes that the user should know, one line each.

    `notes` is looked at after the documents, so reading them may add to it.
    """

    classes: list[str]
    train: Iterable[Document]
    test: Iterable[Document]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where a data set was found: `identity` is everything that its content depends on, `read` reads it.

    The tokenized text is cached under a digest of `identity`, and `read` is called only if there is no cache for it. In
    `identity` a path stands for its file's content; numbers and text stand for settings, such as a version. It must
    not be empty. Raise or change an entry whenever the same files would give other documents. `notes` say where it was
    found, if that may surprise; those of the corpus are kept with the tokenized text.
    """

    identity: list[Path | str | int]
    read: Callable[[], Corpus]
    notes: list[str] = field(default_factory=list)
