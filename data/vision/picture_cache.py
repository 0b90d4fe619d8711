"""Picture files decoded once into a memory-mapped array beside the data, with the facts that decoding found."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import DataError
from ..storage.files import atomic_write, atomic_write_text, exclusive_lock, remove_stale
from ..storage.folders import counted, unreadable
from .pictures import read_picture

CHUNK = 512  # images that are decoded between two writes
VERSION = 2  # of the cache: increase it when the same files decode to other pixels


def decoded(
    files: list[Path], size: int, *, folder: Path, cache: Path, title: str, part: str
) -> tuple[Tensor, list[str]]:
    """Return (uint8 (rows, 3, size, size), notes) of the files, from the cache if it holds exactly these.

    The array is kept in `cache` and mapped into memory; where that cannot be written it is held in memory, and a note
    says so. The files lie under `folder`. Raises DataError for a file that cannot be read as a picture.
    """
    shape = (len(files), 3, size, size)
    path = cache / f"{title}-{part}-{size}-{_key(files, size, folder)}.npy"
    found, reason = None, "the file just written cannot be read back"
    try:
        found = _load(path, shape)  # before the lock: the folder may be another user's, or read-only
        if found is None:
            cache.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(cache / ".lock"):  # of several runs that start together, one decodes
                found = _load(path, shape)
                if found is None:
                    remove_stale(cache, path.name)  # a killed run may have left a gigabyte
                    _write(path, shape, files, size, part)
                    found = _load(path, shape)
    except OSError as error:
        reason = error.strerror or str(error)
    if found is not None:
        images, facts = found
        return images, _notes(title, part, facts)
    note = f"{title}: no cache in {cache} ({reason}): every run decodes the images again"
    facts = Counter()
    held = torch.from_numpy(np.concatenate(list(_chunks(files, size, part, facts))))
    return held, [note, *_notes(title, part, facts)]


def _notes(title: str, part: str, facts: Counter[str]) -> list[str]:
    return [f"{title}: {counted(number, f'{part} picture')} {fact}" for fact, number in sorted(facts.items())]


def _key(files: list[Path], size: int, folder: Path) -> str:
    """Return a digest of what the pixels depend on: `size`, and the files' names, sizes and modification times."""
    digest = hashlib.blake2b(f"{VERSION} {size}".encode(), digest_size=8)
    for file in files:
        try:
            facts = file.stat()
        except OSError as error:
            raise unreadable(file, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"{file}: has the name of a picture, but is no file; remove or rename it")
        digest.update(b"\n" + os.fsencode(file.relative_to(folder).as_posix()))
        digest.update(f"\t{facts.st_size}\t{facts.st_mtime_ns}".encode())
    return digest.hexdigest()


def _load(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, Counter[str]] | None:
    """Map the array at `path` into memory, and read the facts beside it; return None if one is missing or damaged."""
    try:
        # Copy on write: torch wants writable memory, and the file must not change.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        facts = Counter(json.loads(_beside(path).read_bytes()))
    except (FileNotFoundError, ValueError, EOFError, TypeError):
        return None
    return (torch.from_numpy(array), facts) if array.dtype == np.uint8 and array.shape == shape else None


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _write(path: Path, shape: tuple[int, ...], files: list[Path], size: int, part: str) -> None:
    facts: Counter[str] = Counter()
    # Written in sequence rather than through a memory map: there a full disk is a fatal signal, here it is an error.
    with atomic_write(path) as file:
        _write_header(file, shape)
        for chunk in _chunks(files, size, part, facts):
            file.write(chunk.tobytes())
    atomic_write_text(_beside(path), json.dumps(facts))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _chunks(files: list[Path], size: int, part: str, facts: Counter[str]) -> Iterator[np.ndarray]:
    """Yield the images in order, uint8 (at most CHUNK, 3, size, size), and count in `facts` what is to be told."""
    workers = min(8, os.cpu_count() or 1)  # Pillow releases the GIL while it decodes, so threads are enough
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(files), desc=f"decoding {part}", unit="image", leave=False, disable=None) as bar,
    ):
        warnings.simplefilter("ignore")  # PIL's, about odd metadata, of which photographs have a lot
        for start in range(0, len(files), CHUNK):
            read = list(pool.map(lambda file: read_picture(file, size), files[start : start + CHUNK]))
            facts.update(fact for _, told in read for fact in told)
            chunk = np.stack([pixels for pixels, _ in read])
            bar.update(len(chunk))
            yield chunk
