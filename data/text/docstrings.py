"""A text data set that every installation has: the docstrings of installed packages, labeled by package.

The files are parsed, never imported. Names that would give a package away are removed from every text, so that what is
left to learn is what the package is about.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from ALPackage.randomness import generator

from ..errors import DataError
from .source import Corpus, Document, Source

#: Import name of a package -> name under which it is installed. requirements.txt installs them all.
PACKAGES = {
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
PER_CLASS = 600  # documents per package, at most
PER_FILE = 15  # documents per file, at most: the docstrings of one file repeat each other
MAX_BYTES = 40_000  # larger files are skipped: they take long to parse for the few documents they may give
MIN_WORDS = 12
TEST_FRACTION = 0.2
SPLIT_SEED = 0

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_FORMAT = 1  # part of the identity: increase it when the same packages give other texts
_NAMES = re.compile(
    # The leading \b keeps the search linear: without it every letter of a word is tried as a beginning.
    r"\b\w*(?:torch|numpy|pandas|matplotlib|scipy|sklearn|scikit(?:-learn)?)\w*|\b(?:np|pd|plt|mpl|sp|aten)\b",
    re.IGNORECASE,
)


def load(_root: Path) -> Source:
    """Find the installed packages; `DataError` if there are fewer than two.

    A document is the docstring of a module, class or function, of at least `MIN_WORDS` words, without the names of all
    the packages (`torch`, `np`, `numpydoc`, ...). Files are taken in the order of a hash of their path, without tests,
    until a package has `PER_CLASS` documents. Each text is kept once, and not at all if two packages share it. One
    fifth of each class, drawn with a constant seed, is test. The result depends on the packages' versions alone.
    """
    folders = {name: folder for name in PACKAGES if (folder := _folder(name)) is not None}
    absent = [PACKAGES[name] for name in PACKAGES if name not in folders]
    if len(folders) < 2:
        raise DataError(
            f"docstrings: of {', '.join(PACKAGES.values())} fewer than 2 are installed; "
            "run `pip install -r requirements.txt`"
        )
    versions = [f"{PACKAGES[name]} {_version(name)}" for name in folders]
    notes = [f"docstrings: taken from {', '.join(versions)}; other versions give other texts"]
    notes += [f"docstrings: no class for {name}, which is not installed" for name in absent]
    settings = (PER_CLASS, PER_FILE, MAX_BYTES, MIN_WORDS, TEST_FRACTION, SPLIT_SEED, _FORMAT)
    return Source(["docstrings", *versions, *map(str, settings)], lambda: _read(folders, notes))


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # for a top-level name this imports nothing
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(PACKAGES[package])
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _read(folders: dict[str, Path], notes: list[str]) -> Corpus:
    texts = {package: _texts(folder) for package, folder in folders.items()}
    owners: dict[str, int] = {}
    for found in texts.values():
        for text in found:
            owners[text] = owners.get(text, 0) + 1
    train: list[Document] = []
    test: list[Document] = []
    for label, (package, found) in enumerate(texts.items()):
        kept = [text for text in found if owners[text] == 1]
        order = torch.randperm(len(kept), generator=generator("docstrings", SPLIT_SEED, package)).tolist()
        n_test = round(TEST_FRACTION * len(kept))
        test += [(kept[number], label) for number in order[:n_test]]
        train += [(kept[number], label) for number in order[n_test:]]
    return Corpus(list(texts), train, test, notes)


def _texts(folder: Path) -> list[str]:
    """Return at most `PER_CLASS` distinct texts of a package, in an order that depends on paths alone."""
    found: dict[str, None] = {}
    for file in _files(folder):
        fresh = (text for text in _docstrings_of(file) if text not in found)
        found.update(dict.fromkeys(islice(fresh, PER_FILE)))
        if len(found) >= PER_CLASS:
            break
    return list(found)[:PER_CLASS]


def _files(folder: Path) -> list[Path]:
    paths = [path.relative_to(folder) for path in folder.rglob("*.py")]
    paths = [path for path in paths if not any("test" in part for part in path.parts)]
    # Unlike pathlib's, these answer False for what may not be looked at.
    paths = [path for path in paths if os.path.isfile(folder / path) and os.path.getsize(folder / path) <= MAX_BYTES]
    return [folder / path for path in sorted(paths, key=_path_hash)]


def _path_hash(path: Path) -> bytes:
    return hashlib.blake2b(path.as_posix().encode(), digest_size=8).digest()


def _docstrings_of(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in another package's strings are not the user's concern
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):  # a template, or code for another Python version
            return
    for node in _definitions(tree):
        words = _NAMES.sub(" ", ast.get_docstring(node) or "").split()
        if len(words) >= MIN_WORDS:
            yield " ".join(words)


def _definitions(node: _Documented) -> Iterator[_Documented]:
    """Yield a module, class or function and everything defined in it, in the order of the file."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _definitions(child)
