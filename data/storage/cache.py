"""Arrays kept on disk under the data root, found again by what they were made from.

The key is a digest of file contents and settings, so there is nothing to invalidate: other input gets another name.
A cache may only save time: a damaged file is built again, and where the folder cannot be written there is no cache.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import atomic_write

_DIGEST_SIZE = 32
_CHUNK = 1 << 20

Arrays = dict[str, np.ndarray]


def content_key(parts: Iterable[Path | str | int]) -> str:
    """Return a digest of the parts in order; a path stands for its file's content (read whole, about 1 GB/s).

    Raises DataError for a file that cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        one = hashlib.blake2b(digest_size=16, person=type(part).__name__.encode()[:16])
        if isinstance(part, Path):
            try:
                with part.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        one.update(chunk)
            except OSError as error:
                raise DataError(f"{part}: cannot be read ({error.strerror}); check its permissions") from error
        else:
            one.update(str(part).encode())
        digest.update(one.digest())
    return digest.hexdigest()


def cached(root: Path, name: str, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays kept as `root/.cache/name-key.npz`, or build them and keep them there.

    The arrays must hold numbers: nothing is pickled. The write is atomic, so a reader never sees half a file.
    """
    path = root / ".cache" / f"{name}-{key}.npz"
    arrays = _load(path)
    if arrays is None:
        arrays = build()
        _save(path, arrays)
    return arrays


def _load(path: Path) -> Arrays | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_SIZE], memoryview(content)[_DIGEST_SIZE:]
    if hashlib.blake2b(payload, digest_size=_DIGEST_SIZE).digest() != digest:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _save(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stubs take any name for a flag
    payload = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(hashlib.blake2b(payload, digest_size=_DIGEST_SIZE).digest())
            file.write(payload)
    except OSError:
        return  # a read-only or full disk costs the next run some time, nothing else
