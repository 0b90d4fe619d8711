"""Word vectors in the GloVe text format, one row per id of a vocabulary.

The row of an id is looked up by the token that the vocabulary lists under that id, specials included, so rows cannot
be shifted against ids. Only the lines of wanted words are converted to numbers: 400,000 lines take seconds.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ALPackage.randomness import generator

from ..errors import DataError
from ..resource import archive
from ..storage.cache import cached, content_key
from .tokenization import PAD, SPECIALS, import_torchtext, resolve_backend

GLOVE = archive(
    "glove",
    ".",
    "glove.6B.zip",
    "https://nlp.stanford.edu/data/glove.6B.zip",
    "056ea991adb4740ac6bf1b6d9b50408b",
    *(f"glove.6B.{width}d.txt" for width in (50, 100, 200, 300)),
)

_FORMAT = 2  # part of the cache key: increase it when the stored arrays change their meaning
_DEFAULT_STD = 0.4  # about that of GloVe 6B 300d; used when there are no vectors to measure
_NUMERIC = b"0123456789+-.eE "


def load_vectors(
    vocabulary: list[str], dim: int, *, root: Path, seed: int, backend: str = "auto"
) -> tuple[Tensor, list[str]]:
    """Return (vectors float32 (len(vocabulary), dim), notes); row i belongs to `vocabulary[i]`, <pad> is zero.

    Words of `glove.6B.{dim}d.txt`, in `root` or `root/glove.6B`, get their vectors. The others, or all words if there
    is no such file, are drawn from N(0, s) with `seed`, where s is the standard deviation of the vectors found. The
    notes say what share of the words was found, or which file to put where. Raises DataError for a damaged file.
    """
    path = find_file(dim, root)
    if path is None:
        rows = random_vectors(vocabulary, dim, seed=seed)
        note = (
            f"word vectors: no glove.6B.{dim}d.txt in {root}, so all words start at random (seed {seed}); put the file "
            f"there, or run `python -m data.download glove --data-root {root}` (dimensions 50, 100, 200, 300)"
        )
    else:
        tools = resolve_backend(backend)
        key = content_key([_FORMAT, tools.name, path, dim, "\n".join(vocabulary)])
        stored = cached(root, "vectors", key, lambda: _stored(vocabulary, path, dim, tools.name))
        found = torch.from_numpy(stored["found"])
        std = float(torch.from_numpy(stored["vectors"]).std(correction=0)) if len(found) else _DEFAULT_STD
        rows = random_vectors(vocabulary, dim, seed=seed, std=std or _DEFAULT_STD)
        rows[found] = torch.from_numpy(stored["vectors"])
        words = len(set(vocabulary) - set(SPECIALS))
        hits = len({vocabulary[i] for i in found.tolist()} - set(SPECIALS))
        note = (
            f"word vectors: {hits} of {words} words of the vocabulary ({100 * hits / max(words, 1):.1f} %) found in "
            f"{path}; the others are drawn from N(0, {std:.3f}), seed {seed}"
        )
        if twice := int(stored["twice"]):
            again = f"word vectors: {twice} lines of {path} repeat a word; the last line of each word counts"
            return rows, [note, again]
    return rows, [note]


def random_vectors(vocabulary: list[str], dim: int, *, seed: int, std: float = _DEFAULT_STD) -> Tensor:
    """Return vectors float32 (len(vocabulary), dim) drawn from N(0, std) with `seed`; <pad> is zero."""
    rows = torch.empty(len(vocabulary), dim).normal_(0.0, std, generator=generator("vectors", seed))
    rows[[i for i, word in enumerate(vocabulary) if word == PAD]] = 0.0
    return rows


def get_vectors(
    tokens: list[str], path: Path, dim: int, *, lower_case_backup: bool = False, backend: str = "builtin"
) -> Tensor:
    """Return what torchtext's `Vectors(path).get_vecs_by_tokens` does: float32 (len(tokens), dim), zero if missing.

    With `lower_case_backup` a token that is not in the file is looked up in lower case.
    """
    return _look_up(tokens, path, dim, lower_case_backup, resolve_backend(backend).name)[0]


def find_file(dim: int, root: Path) -> Path | None:
    """Return the vector file of this dimension under `root`, or None if it is not there."""
    name = f"glove.6B.{dim}d.txt"
    return next((path for path in (root / name, root / "glove.6B" / name) if path.is_file()), None)


def _stored(vocabulary: list[str], path: Path, dim: int, backend: str) -> dict[str, np.ndarray]:
    vectors, found, twice = _look_up(vocabulary, path, dim, True, backend)
    return {"found": np.flatnonzero(found), "vectors": vectors.numpy()[found], "twice": np.array(twice)}


def _look_up(
    tokens: list[str], path: Path, dim: int, lower_case_backup: bool, backend: str
) -> tuple[Tensor, np.ndarray, int]:
    """Return (vectors float32 (len(tokens), dim), found bool (len(tokens),), lines that repeat a wanted word)."""
    wanted = {token.encode() for token in tokens}
    if lower_case_backup:
        wanted |= {token.lower().encode() for token in tokens}
    lines: dict[bytes, bytes] = {}
    table: dict[bytes, np.ndarray] = {}
    twice = 0
    for word, line, vector in _scan(path, dim, wanted):  # if a word is repeated, its last line counts
        twice += word in table
        lines[word], table[word] = line, vector

    def key(token: str) -> bytes:
        exact = token.encode()
        return token.lower().encode() if lower_case_backup and exact not in table else exact

    found = np.array([key(token) in table for token in tokens], dtype=bool)
    if backend == "torchtext" and lines and dim > 2:  # it takes a line of two numbers or fewer for a header
        return _torchtext_vectors(tokens, list(lines.values()), lower_case_backup), found, twice
    vectors = np.zeros((len(tokens), dim), dtype=np.float32)
    for row in np.flatnonzero(found):
        vectors[row] = table[key(tokens[row])]
    return torch.from_numpy(vectors), found, twice


def _scan(path: Path, dim: int, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes, np.ndarray]]:
    """Yield (word, line, vector float32 (dim,)) of each wanted word; every line is checked."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip()
                word, _, values = line.partition(b" ")
                entries = values.count(b" ") + 1 if values else 0
                if not line or (number == 1 and dim > 1 and entries == 1 and word.isdigit() and values.isdigit()):
                    continue  # a blank line, or the header (words, dimension) of the word2vec format
                if entries != dim:
                    raise DataError(
                        f"{path} line {number}: {entries} numbers; expected {dim}: get the file again, or set "
                        "embedding_dim to the file's dimension"
                    )
                if values.translate(None, _NUMERIC):
                    raise _not_finite(path, number)
                if word in wanted:
                    yield word, line, _vector(values, path, number)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _vector(values: bytes, path: Path, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 is reported below
            vector = np.array([float(value) for value in values.split(b" ")], dtype=np.float32)
    except ValueError:
        raise _not_finite(path, number) from None
    if not np.isfinite(vector).all():
        raise _not_finite(path, number)
    return vector


def _not_finite(path: Path, number: int) -> DataError:
    return DataError(f"{path} line {number}: not all values are finite numbers; get the file again, or fix that line")


def _torchtext_vectors(tokens: list[str], lines: list[bytes], lower_case_backup: bool) -> Tensor:
    torchtext = import_torchtext()
    checked_https = ssl._create_default_https_context
    try:
        # A small file with the wanted lines: torchtext reads the whole file, and caches by file name only.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            chosen = Path(folder, "vectors.txt")
            chosen.write_bytes(b"\n".join(lines) + b"\n")
            table = torchtext.vocab.Vectors(name=str(chosen), cache=folder)
    finally:
        ssl._create_default_https_context = checked_https  # torchtext turns certificate checks off for the process
    vectors: Tensor = table.get_vecs_by_tokens(tokens, lower_case_backup=lower_case_backup)
    return vectors
