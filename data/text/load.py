"""Text data sets as token ids with lengths: read once, tokenized once, kept on disk, then only cut and padded.

What is kept is the whole text as ids of every distinct token, so that vocabulary size, length, seed and
validation share can change without tokenizing again, and no Python loop over words is left for training.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dataset import Dataset, divide, make_dataset
from ..errors import DataError
from ..registry import canonical
from ..storage.cache import cached, content_key
from .docstrings import docstrings
from .readers import CLASS_CSV, Corpus, Document, Source, class_csv, imdb
from .tokenization import PAD, SPECIALS, UNK, TextBackend, Vocabulary, resolve_backend

_FORMAT = 1  # part of every cache key: raise it when the stored arrays or the readers change their meaning
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
    """Load agnews, dbpedia, imdb or docstrings (any case) from `root`, fetching it where it has an address.

    Inputs are (token ids int32 (rows, max_len) padded with 0, lengths int64 (rows,)): the first `max_len` tokens
    of each document; an empty one is the single token <unk>, so that each length is at least 1. Training
    documents (those of validation among them) of fewer than `min_len` tokens are left out, test ones never.
    The vocabulary, of at most `vocab_size` entries with <pad> = 0 and <unk> = 1, counts the train split alone:
    neither validation nor test documents are seen. Raises DataError for data that is missing or unusable.
    """
    key = canonical(name, "text")
    if max_len < 1:
        raise DataError(f"max_len: got {max_len}; expected at least 1 token")
    tools = resolve_backend(backend)
    corpus = _tokenized(key, root, tools)
    long_enough = corpus.train.counts >= min_len
    train = corpus.train.select(long_enough)
    if not len(train.labels):
        raise DataError(f"{key}: no training document has min_len={min_len} tokens; lower min_len")
    train_rows, _ = divide(len(train.labels), val_fraction=val_fraction, seed=seed, limit=limit_train)
    vocabulary = tools.build_vocabulary(train.documents(train_rows.tolist(), corpus.words), max_tokens=vocab_size)
    notes = [tools.note, *corpus.notes]
    if left_out := int((~long_enough).sum()):
        notes.append(f"{key}: {left_out} training documents of fewer than min_len={min_len} tokens left out")
    if empty := int((train.counts == 0).sum() + (corpus.test.counts == 0).sum()):
        notes.append(f"{key}: {empty} documents without any token stand as a single {UNK}")
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


def trim(inputs: tuple[Tensor, Tensor], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Cut a batch to its longest document: (tokens (B, max_len), lengths (B,)) -> (int64 (B, longest), int64 (B,)).

    A batch transform: it draws nothing, so `generator` is not used. Waits for the device that holds `lengths`.
    """
    tokens, lengths = inputs
    return tokens[:, : int(lengths.max())].long(), lengths.long()


@dataclass(frozen=True)
class _Documents:
    """Documents end to end in `flat` (int32 ids of the distinct tokens); one starts at `starts`, int64 (rows,)."""

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
    """A corpus as ids; `words` holds the token of each."""

    classes: list[str]
    words: list[str]
    train: _Documents
    test: _Documents
    notes: list[str]


def _final_ids(words: list[str], vocabulary: Vocabulary) -> np.ndarray:
    ids = np.array(vocabulary(words), dtype=np.int32)
    ids[ids == _PAD_ID] = _UNK_ID  # a text that spells "<pad>" is still text
    return ids


def _tokenized(name: str, root: Path, tools: TextBackend) -> _Tokenized:
    source = _find(name, root)
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
            raise DataError(f"{name}: the {part} set holds no document; get its files again")
        arrays[f"{part}_flat"] = np.array(flat, dtype=np.int32)
        arrays[f"{part}_counts"] = np.array(counts, dtype=np.int64)
        arrays[f"{part}_labels"] = np.array(labels, dtype=np.int64)

    encode("train", corpus.train)
    encode("test", corpus.test)
    facts = {"classes": corpus.classes, "words": list(numbers), "notes": corpus.notes}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    return arrays


def _find(name: str, root: Path) -> Source:
    if name == "docstrings":
        return docstrings()
    look = partial(imdb, root) if name == "imdb" else partial(class_csv, name, root)
    source = look()
    if source is None:
        from ..download import RESOURCES, fetch  # needed only here, and slow to import

        fetch(RESOURCES[name], root)
        source = look()
    if source is None:
        raise DataError(f"{name}: {CLASS_CSV[name][0]}/ in {root} lacks train.csv and test.csv; put them there")
    return source
