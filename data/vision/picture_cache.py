"""Picture files decoded once into a memory-mapped array beside the data, with the facts that decoding found."""

from __future__ import annotations

import contextlib
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
from ..storage.cache import content_key
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
    key, changes = _stamps(files, size, folder)
    path = cache / f"{title}-{part}-{size}-{key}.npy"
    found, reason = None, "the file just written cannot be read back"
    try:
        found = _load(path, shape, files, changes)  # before the lock: the folder may be another user's, or read-only
        if found is None:
            cache.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(cache / ".lock"):  # of several runs that start together, one decodes
                found = _load(path, shape, files, changes)
                if found is None:
                    remove_stale(cache, path.name)  # a killed run may have left a gigabyte
                    _write(path, shape, files, size, part, changes)
                    found = _load(path, shape, files, changes)
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


def _stamps(files: list[Path], size: int, folder: Path) -> tuple[str, str]:
    """Return two digests of what the pixels depend on.

    The first is of `size` and the files' names, sizes and modification times. Unpackers and `cp -p` set these times, so
    other files may have the same. The second is of the times that the system itself keeps.
    """
    digest = hashlib.blake2b(f"{VERSION} {size}".encode(), digest_size=8)
    changes = hashlib.blake2b(digest_size=8)
    for file in files:
        try:
            facts = file.stat()
        except OSError as error:
            raise unreadable(file, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"{file}: has the name of a picture, but is no file; remove or rename it")
        digest.update(b"\n" + os.fsencode(file.relative_to(folder).as_posix()))
        digest.update(f"\t{facts.st_size}\t{facts.st_mtime_ns}".encode())
        changes.update(f"{facts.st_ctime_ns}\t".encode())
    return digest.hexdigest(), changes.hexdigest()


def _load(path: Path, shape: tuple[int, ...], files: list[Path], changes: str) -> tuple[Tensor, Counter[str]] | None:
    """Map the array at `path` into memory, and read the facts beside it; return None if one is missing or damaged.

    Where files have been touched since they were decoded, their contents are compared: also a copy and a change of
    rights touch them.
    """
    try:
        # Copy on write: torch wants writable memory, and the file must not change.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        beside = json.loads(_beside(path).read_bytes())
        facts = Counter(beside["facts"])
        if beside["changes"] != changes:
            if beside["content"] != content_key(files):
                return None
            with contextlib.suppress(OSError):  # another user's cache
                _write_beside(path, facts, beside["content"], changes)
    except (FileNotFoundError, ValueError, EOFError, TypeError, KeyError):
        return None
    return (torch.from_numpy(array), facts) if array.dtype == np.uint8 and array.shape == shape else None


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _write_beside(path: Path, facts: Counter[str], content: str, changes: str) -> None:
    atomic_write_text(_beside(path), json.dumps({"facts": facts, "content": content, "changes": changes}))


def _write(path: Path, shape: tuple[int, ...], files: list[Path], size: int, part: str, changes: str) -> None:
    facts: Counter[str] = Counter()
    content = content_key(files)
    # Written in sequence rather than through a memory map: there a full disk is a fatal signal, here it is an error.
    with atomic_write(path) as file:
        _write_header(file, shape)
        for chunk in _chunks(files, size, part, facts):
            file.write(chunk.tobytes())
    _write_beside(path, facts, content, changes)


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
