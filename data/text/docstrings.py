"""A text data set that every installation has: docstrings of installed packages, labeled by package.

The files are parsed, never imported. Names that would give a package away are taken out of every text, so what
is left to learn is what the package is about.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from ALPackage.randomness import generator

from ..errors import DataError
from .readers import Corpus, Document, Source

#: Name under which a package is imported -> name under which it is installed. All come with requirements.txt.
PACKAGES = {
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
PER_CLASS = 600  # documents of a package at most
PER_FILE = 15  # of one file at most: its docstrings repeat each other
MAX_BYTES = 40_000  # of one file: a longer one takes long to parse, for the few documents it may give
MIN_WORDS = 12
TEST_FRACTION = 0.2
SPLIT_SEED = 0

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_FORMAT = 1  # part of the identity: raise it when the same packages give other texts
_NAMES = re.compile(
    # The leading \b keeps the search linear: without it each letter of a word is tried as its beginning.
    r"\b\w*(?:torch|numpy|pandas|matplotlib|scipy|sklearn|scikit(?:-learn)?)\w*|\b(?:np|pd|plt|mpl|sp|aten)\b",
    re.IGNORECASE,
)


def docstrings() -> Source:
    """Find the packages; `DataError` with fewer than two of them.

    A document is the docstring of a module, class or function, of at least `MIN_WORDS` words, with the names of
    all the packages removed (`torch`, `np`, `numpydoc`, ...). Files are taken by a hash of their path, tests left
    out, until a package has `PER_CLASS`. A text stands once; one that two packages share is left out altogether.
    One fifth of each class, drawn with a constant seed, is test. The result depends on the versions alone.
    """
    folders = {name: folder for name in PACKAGES if (folder := _folder(name)) is not None}
    absent = [PACKAGES[name] for name in PACKAGES if name not in folders]
    if len(folders) < 2:
        raise DataError(
            f"docstrings: of {', '.join(PACKAGES.values())} fewer than 2 are installed here; "
            "run `pip install -r requirements.txt`"
        )
    versions = [f"{PACKAGES[name]} {_version(name)}" for name in folders]
    notes = [f"docstrings: taken from {', '.join(versions)}; other versions give other texts"]
    notes += [f"docstrings: no class for {name}, which is not installed" for name in absent]
    settings = (PER_CLASS, PER_FILE, MAX_BYTES, MIN_WORDS, TEST_FRACTION, SPLIT_SEED, _FORMAT)
    return Source(["docstrings", *versions, *map(str, settings)], lambda: _read(folders, notes))


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # of a top-level name: nothing is imported
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
    """Return the distinct texts of a package, `PER_CLASS` at most, in an order that depends on paths alone."""
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
    paths = [path for path in paths if (file := folder / path).is_file() and file.stat().st_size <= MAX_BYTES]
    return [folder / path for path in sorted(paths, key=_shuffled)]


def _shuffled(path: Path) -> bytes:
    return hashlib.blake2b(path.as_posix().encode(), digest_size=8).digest()


def _docstrings_of(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what another package's strings escape is no concern of the user
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):  # a template, or for another Python: no source of text
            return
    for node in _definitions(tree):
        words = _NAMES.sub(" ", ast.get_docstring(node) or "").split()
        if len(words) >= MIN_WORDS:
            yield " ".join(words)


def _definitions(node: _Documented) -> Iterator[_Documented]:
    """Yield a module, class or function and those defined in it, in the order of the file."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _definitions(child)
