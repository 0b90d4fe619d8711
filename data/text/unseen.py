"""Texts that are in no data set, read as those of one: what a trained network is given to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .load import Trim, encode, trim
from .tokenization import resolve_backend


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a data set's documents have gone through before the network saw them."""

    backend: str
    """The tokenizer, "builtin" or "torchtext"; they split alike."""
    max_len: int
    """How many tokens are read."""
    vocabulary: tuple[str, ...]
    """The token of each id."""

    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (token ids int32 (texts, max_len), lengths int64 (texts,)), as `load_text` does."""
        # Where torchtext no longer loads, its built-in twin takes its place.
        backend = resolve_backend("builtin" if self.backend == "builtin" else "auto")
        return encode(texts, list(self.vocabulary), backend, self.max_len)

    def transform(self) -> Trim:
        """Return what turns a batch of them into the network's input."""
        return trim
