"""The file of one layer in a checkpoint: its weights, buffers and moments, and no code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from data.storage.files import atomic_write

#: Bytes that are hashed at a time.
CHUNK = 1 << 20


def save_tensors(path: Path, state: Any) -> str:
    """Write `state`, nested dicts and lists of tensors and numbers, and return the file's SHA-256. Raises OSError."""
    with atomic_write(path) as file:
        stream = _HashedWriter(file)
        try:
            torch.save(state, cast(IO[bytes], stream))
        except RuntimeError as error:
            # torch reports whatever ended a write in words of its own. What the system said is what the user needs,
            # and a signal has to end the run as it does anywhere else.
            cause = stream.error or error.__context__
            if isinstance(cause, (OSError, KeyboardInterrupt)):
                raise cause from None
            raise
    return stream.hash.hexdigest()


def load_tensors(path: Path, sha256: str) -> Any:
    """Return what `save_tensors` wrote, on the CPU. Raises ValueError for other content, and OSError."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
        if found.hexdigest() != sha256:
            raise ValueError("its tensors are not what was written")
        file.seek(0)
        # weights_only: a file that would run code is refused, even one with a checksum that fits.
        return torch.load(file, map_location="cpu", weights_only=True)


class _HashedWriter:
    """Passes on what is written, hashes it on the way, and remembers what went wrong."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            written = self._file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.hash.update(content)
        return written

    def flush(self) -> None:
        self._file.flush()
