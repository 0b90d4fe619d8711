"""Word vectors, one row per id of a vocabulary, from a file or drawn at random.

The row of an id is looked up by the token that the vocabulary lists under that id, specials included, so rows cannot
be shifted against ids.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ALPackage.randomness import generator

from ..storage.cache import cached, content_key
from .tokenization import PAD, SPECIALS, import_torchtext, resolve_backend
from .vector_file import WordVectors, read_vectors
from .vector_names import GLOVE, glove_6b
from .vector_search import find_file, other_files

_FORMAT = 4  # part of the cache key: increase it when the stored arrays change their meaning
_DEFAULT_STD = 0.4  # about that of GloVe 6B 300d; used when there are no vectors to measure


def load_vectors(
    vocabulary: list[str], dim: int, *, root: Path, seed: int, backend: str = "auto", model: str = GLOVE
) -> tuple[Tensor, list[str]]:
    """Return (vectors float32 (len(vocabulary), dim), notes); row i belongs to `vocabulary[i]`, <pad> is zero.

    Words of the file that `model` names (see `find_file`) get their vectors. The others, or all words if there is no
    file, are drawn from N(0, s) with `seed`, where s is the standard deviation of the vectors found. The notes say what
    share of the words was found, or which file to put where. Raises DataError for a damaged file.
    """
    path = find_file(dim, root, model)
    if path is None:
        note = (
            f"word vectors: no {glove_6b(dim).file} in {root}, so all words start at random (seed {seed}); put the "
            f"file there, or run `python -m data.download glove --data-root {root}` (dimensions 50, 100, 200, 300)"
        )
        return random_vectors(vocabulary, dim, seed=seed), [note + other_files(root)]
    tools = resolve_backend(backend)
    key = content_key([_FORMAT, tools.name, path, dim, "\n".join(vocabulary)])
    stored = cached(root, "vectors", key, lambda: _stored(vocabulary, path, dim, tools.name))
    found = torch.from_numpy(stored["found"])
    std = float(torch.from_numpy(stored["vectors"]).std(correction=0)) if len(found) else 0.0
    std = std or _DEFAULT_STD  # vectors that are all alike have none either
    rows = random_vectors(vocabulary, dim, seed=seed, std=std)
    rows[found] = torch.from_numpy(stored["vectors"])
    words = len(set(vocabulary) - set(SPECIALS))
    hits = len({vocabulary[i] for i in found.tolist()} - set(SPECIALS))
    notes = [
        f"word vectors: {hits} of {words} words of the vocabulary ({100 * hits / max(words, 1):.1f} %) found in "
        f"{path}; the others are drawn from N(0, {std:.3f}), seed {seed}"
    ]
    if repeated := int(stored["repeated"]):
        notes.append(f"word vectors: {repeated} lines of {path} repeat a word; the last line of each word counts")
    there, announced = int(stored["words"]), int(stored["announced"])
    if announced not in (0, there):
        notes.append(f"word vectors: {path} holds {there} words, but its first line says {announced}: is it complete?")
    return rows, notes


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
    read = _read(tokens, path, dim, lower_case_backup=lower_case_backup)
    return _look_up(tokens, read, dim, lower_case_backup, resolve_backend(backend).name)[0]


def _stored(vocabulary: list[str], path: Path, dim: int, backend: str) -> dict[str, np.ndarray]:
    read = _read(vocabulary, path, dim, lower_case_backup=True)
    vectors, found = _look_up(vocabulary, read, dim, True, backend)
    found &= np.array([token != PAD for token in vocabulary])  # padding stays zero if a file has a word of its name
    counts = {"repeated": read.repeated, "words": read.words, "announced": read.announced}
    return {
        "found": np.flatnonzero(found),
        "vectors": vectors.numpy()[found],
        **{name: np.array(count) for name, count in counts.items()},
    }


def _read(tokens: list[str], path: Path, dim: int, *, lower_case_backup: bool) -> WordVectors:
    wanted = {token.encode() for token in tokens}
    if lower_case_backup:
        wanted |= {token.lower().encode() for token in tokens}
    return read_vectors(path, dim, wanted)


def _look_up(
    tokens: list[str], read: WordVectors, dim: int, lower_case_backup: bool, backend: str
) -> tuple[Tensor, np.ndarray]:
    """Return (vectors float32 (len(tokens), dim), found bool (len(tokens),))."""
    table = read.table

    def key(token: str) -> bytes:
        exact = token.encode()
        return token.lower().encode() if lower_case_backup and exact not in table else exact

    found = np.array([key(token) in table for token in tokens], dtype=bool)
    # torchtext takes a line of two numbers or fewer for a header, and refuses a word with a space in it.
    if backend == "torchtext" and table and dim > 2 and not any(b" " in word for word in table):
        return _torchtext_vectors(tokens, list(read.lines.values()), lower_case_backup), found
    vectors = np.zeros((len(tokens), dim), dtype=np.float32)
    for row in np.flatnonzero(found):
        vectors[row] = table[key(tokens[row])]
    return torch.from_numpy(vectors), found


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
