"""Text data sets as token ids with lengths: read once, tokenized once, kept on disk, then only cut and padded.

What is kept is the whole text as ids of all distinct tokens, so that vocabulary size, length, seed and validation share
can change without tokenizing again, and training never loops over words in Python.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dataset import Dataset, divide, make_dataset
from ..errors import DataError
from ..registry import entry, resolve
from ..storage.cache import cached, content_key
from .source import Corpus, Document, Source
from .tokenization import PAD, SPECIALS, UNK, BuiltinVocabulary, TextBackend, Vocabulary, resolve_backend

_FORMAT = 2  # part of every cache key: increase it when the stored arrays or the readers change their meaning
_PAD_ID, _UNK_ID = SPECIALS.index(PAD), SPECIALS.index(UNK)


def load_text(
    name: str,
    *,
    root: Path,
    max_len: int,
    min_len: int,
    vocab_size: int,
    val_fraction: float,
    seed: int,
    limit_train: int | None = None,
    backend: str = "auto",
) -> Dataset:
    """Load a text data set by name (any case) from `root`, downloading it if it is not there and has an address.

    Inputs are (token ids int32 (rows, max_len) padded with 0, lengths int64 (rows,)): the first `max_len` tokens of
    each document. An empty document becomes the single token <unk>, so that each length is at least 1. Training
    documents (including those of validation) of fewer than `min_len` tokens are left out, test documents never. The
    vocabulary has at most `vocab_size` entries, with <pad> = 0 and <unk> = 1, and counts the train split alone:
    neither validation nor test documents are seen.

    Raises:
        DataError: an unknown name, or data that is missing or unusable; the message names the file and the line.
    """
    found = entry(name, "text")
    key = found.name
    if max_len < 1:
        raise DataError(f"max_len: got {max_len}; expected at least 1 token")
    tools = resolve_backend(backend)
    try:
        source = _source(key, found.load, root)
        corpus = _tokenized(key, source, root, tools)
    except (OSError, UnicodeError) as error:  # of a plug-in's loader: those of this package raise DataError
        raise DataError(f"{key}: its data cannot be read ({error}); restore the file, or get it again") from error
    if len(corpus.classes) < 2:
        raise DataError(f"{key}: has one class only ({', '.join(corpus.classes)}); give it at least 2")
    long_enough = corpus.train.counts >= min_len
    train = corpus.train.select(long_enough)
    if not len(train.labels):
        raise DataError(f"{key}: no training document has min_len={min_len} tokens; lower min_len")
    train_rows, _ = divide(len(train.labels), val_fraction=val_fraction, seed=seed, limit=limit_train, name=key)
    vocabulary = tools.build_vocabulary(train.documents(train_rows.tolist(), corpus.words), max_tokens=vocab_size)
    notes = [tools.note, *source.notes, *corpus.notes]
    if left_out := int((~long_enough).sum()):
        notes.append(f"{key}: {left_out} training documents of fewer than min_len={min_len} tokens were left out")
    if empty := int((train.counts == 0).sum() + (corpus.test.counts == 0).sum()):
        notes.append(f"{key}: {empty} documents without any token became a single {UNK}")
    cut = float((train.counts > max_len).mean())
    notes.append(f"{key}: {100 * cut:.1f} % of the training documents are longer than max_len={max_len} and are cut")
    ids = _final_ids(corpus.words, vocabulary)
    return make_dataset(
        key,
        corpus.classes,
        (train.padded(ids, max_len), torch.from_numpy(train.labels)),
        (corpus.test.padded(ids, max_len), torch.from_numpy(corpus.test.labels)),
        val_fraction=val_fraction,
        seed=seed,
        limit_train=limit_train,
        vocabulary=vocabulary.get_itos(),
        notes=notes,
    )


class Trim:
    """Batch transform: cut a batch of texts to its longest document, and turn it into int64.

    (tokens (B, max_len), lengths (B,)) -> (int64 (B, longest), int64 (B,)). It draws nothing. The cut happens on the
    CPU, where reading the longest length does not wait for a GPU, and fewer tokens have to be copied.
    """

    def before_transfer(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the batch cut to its longest document; the tensors are on the CPU."""
        tokens, lengths = inputs
        return tokens[:, : int(lengths.max())], lengths

    def __call__(self, inputs: tuple[Tensor, Tensor], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return the batch, cut before, as int64; reads nothing from the device."""
        tokens, lengths = inputs
        return tokens.long(), lengths.long()


trim = Trim()


def encode(texts: Sequence[str], vocabulary: list[str], tools: TextBackend, max_len: int) -> tuple[Tensor, Tensor]:
    """Return (token ids int32 (texts, max_len), lengths int64 (texts,)), as `load_text` does for documents."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    tokens = [[numbers[token] for token in tools.tokenize(text)] for text in texts]
    counts = np.array([len(each) for each in tokens], dtype=np.int64)
    flat = np.array([number for each in tokens for number in each], dtype=np.int32)
    documents = _Documents(flat, np.cumsum(counts) - counts, counts, np.zeros_like(counts))
    return documents.padded(_final_ids(list(numbers), BuiltinVocabulary(vocabulary)), max_len)


@dataclass(frozen=True)
class _Documents:
    """Documents end to end in `flat` (int32 ids of distinct tokens); each begins at its `starts`, int64 (rows,)."""

    flat: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    labels: np.ndarray

    def select(self, keep: np.ndarray) -> _Documents:
        """Return the documents where `keep`, bool (rows,), is true."""
        return _Documents(self.flat, self.starts[keep], self.counts[keep], self.labels[keep])

    def documents(self, rows: Iterable[int], words: list[str]) -> Iterator[list[str]]:
        """Yield the tokens of each of `rows`."""
        for row in rows:
            start = self.starts[row]
            yield [words[number] for number in self.flat[start : start + self.counts[row]].tolist()]

    def padded(self, ids: np.ndarray, max_len: int) -> tuple[Tensor, Tensor]:
        """Return (tokens int32 (rows, max_len), lengths int64 (rows,)); `ids` maps distinct tokens to ids."""
        tokens = np.full((len(self.counts), max_len), _PAD_ID, dtype=np.int32)
        for column in range(min(max_len, int(self.counts.max(initial=0)))):
            rows = np.flatnonzero(self.counts > column)
            tokens[rows, column] = ids[self.flat[self.starts[rows] + column]]
        tokens[self.counts == 0, 0] = _UNK_ID
        return torch.from_numpy(tokens), torch.from_numpy(np.clip(self.counts, 1, max_len))


@dataclass(frozen=True)
class _Tokenized:
    """A corpus as ids of distinct tokens; `words` has the token of each id."""

    classes: list[str]
    words: list[str]
    train: _Documents
    test: _Documents
    notes: list[str]


def _final_ids(words: list[str], vocabulary: Vocabulary) -> np.ndarray:
    ids = np.array(vocabulary(words), dtype=np.int32)
    ids[ids == _PAD_ID] = _UNK_ID  # a text that spells "<pad>" is still text
    return ids


def _source(name: str, load: Any, root: Path) -> Source:
    source = resolve(load, name)(root)
    if not isinstance(source, Source):
        raise DataError(f"{name}: its load function returned {type(source).__name__}; expected data.Source")
    if not source.identity:
        raise DataError(f"{name}: its source has an empty identity; list what its text depends on")
    return source


def _tokenized(name: str, source: Source, root: Path, tools: TextBackend) -> _Tokenized:
    """Return the tokenized text from the cache, or read and tokenize it now."""
    key = content_key([_FORMAT, tools.name, *source.identity])
    arrays = cached(root, name, key, lambda: _tokenize(name, source.read(), tools.tokenize))
    facts = json.loads(arrays["facts"].tobytes())
    parts = {}
    for part in ("train", "test"):
        counts = arrays[f"{part}_counts"]
        starts = np.cumsum(counts) - counts
        parts[part] = _Documents(arrays[f"{part}_flat"], starts, counts, arrays[f"{part}_labels"])
    return _Tokenized(facts["classes"], facts["words"], parts["train"], parts["test"], facts["notes"])


def _tokenize(name: str, corpus: Corpus, tokenize: Callable[[str], list[str]]) -> dict[str, np.ndarray]:
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    arrays: dict[str, np.ndarray] = {}

    def encode(part: str, documents: Iterable[Document]) -> None:
        flat, counts, labels = array("i"), array("q"), array("q")
        for text, label in documents:
            tokens = tokenize(text)
            flat.extend([numbers[token] for token in tokens])
            counts.append(len(tokens))
            labels.append(label)
        if not labels:
            raise DataError(f"{name}: the {part} set has no documents; get its files again")
        if not 0 <= min(labels) <= max(labels) < len(corpus.classes):
            raise DataError(f"{name}: a label of the {part} set is outside 0..{len(corpus.classes) - 1}; correct it")
        arrays[f"{part}_flat"] = np.array(flat, dtype=np.int32)
        arrays[f"{part}_counts"] = np.array(counts, dtype=np.int64)
        arrays[f"{part}_labels"] = np.array(labels, dtype=np.int64)

    encode("train", corpus.train)
    encode("test", corpus.test)
    facts = {"classes": corpus.classes, "words": list(numbers), "notes": corpus.notes}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    return arrays
