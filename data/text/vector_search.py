"""Find the file of word vectors that `pretrained_model` names, where users leave such files."""

from __future__ import annotations

import glob
import json
import os
import re
from pathlib import Path, PurePath

from ..download import unpack_provided
from ..errors import DataError
from ..resource import Resource, archive
from ..storage import search
from ..storage.folders import kind, names_in
from .vector_file import dimension
from .vector_names import EXPECTED, GLOVE, glove_6b, published

#: What `python -m data.download glove` fetches.
RESOURCE = archive(
    "glove",
    ".",
    "glove.6B.zip",
    "https://nlp.stanford.edu/data/glove.6B.zip",
    "056ea991adb4740ac6bf1b6d9b50408b",
    *(f"glove.6B.{width}d.txt" for width in (50, 100, 200, 300)),
)

_TORCHTEXTS = ".vector_cache"  # where torchtext puts what it downloads
_LIKE_VECTORS = re.compile(r"(glove\..*\.txt|.*\.vec)(\.gz)?", re.IGNORECASE)


def find_file(dim: int, root: Path, model: str = GLOVE) -> Path | None:
    """Return the file of word vectors that `model` names, whose dimension is `dim`.

    `model` is "glove", the name of published vectors, or a path, from the working directory or from `root`. Published
    files are looked for in `root`, in its folders and beside it, and an archive of them in `root` is unpacked. Only for
    "glove", the default, may there be none: None.

    Raises:
        DataError: there is no such file, or it cannot be read, or its vectors are of another dimension.
    """
    if model == GLOVE:
        wanted = glove_6b(dim)
        # There is no GloVe 6B of any other dimension, so no archive holds it.
        path = _search(wanted.file, wanted.archive if published(wanted.name) else "", root)
    else:
        path = _own_file(model, root) or _published_file(model, dim, root)
    if path is not None and (there := dimension(path)) != dim:
        raise DataError(_mismatch(str(path), there, dim))
    return path


def other_files(root: Path) -> str:
    """Return the end of a message: which other files of word vectors lie in `root`; empty if there are none."""
    listed = names_in(root) if kind(root) == "folder" and os.access(root, os.R_OK) else []
    names = [name for name in listed if _LIKE_VECTORS.fullmatch(name)]
    if not names:
        return ""
    there = ", ".join(names[:4])
    return f". There is {there}: to use it, set pretrained_model to its name, and embedding_dim to its dimension"


def _mismatch(what: str, there: int, dim: int) -> str:
    return (
        f"{what}: its vectors have {there} numbers, but embedding_dim is {dim}; "
        f"set embedding_dim to {there}, or choose another file"
    )


def _own_file(model: str, root: Path) -> Path | None:
    for path in (Path(os.path.expanduser(model)), root / model):
        if kind(path) == "folder":
            # Windows unpacks x.vec.zip into a folder x.vec.
            if kind(path / path.name) != "file":
                raise DataError(f"pretrained_model: {path} is a folder; name a file of word vectors in it")
            return path / path.name
        if kind(path) == "file":
            return path
    if published(model) is not None:
        return None
    if model == PurePath(model).name and (found := _search(model, f"{model}.zip", root)):
        return found
    raise DataError(
        f"pretrained_model: no file {json.dumps(model)} in the working directory {Path.cwd()} nor in {root}; "
        f"expected {EXPECTED}"
    )


def _published_file(model: str, dim: int, root: Path) -> Path | None:
    if (wanted := published(model)) is None:
        return None
    if wanted.dim != dim:
        raise DataError(_mismatch(f"pretrained_model {wanted.name}", wanted.dim, dim))
    if path := _search(wanted.file, wanted.archive, root):
        return path
    raise DataError(
        f"pretrained_model {wanted.name}: no {wanted.file} in {root}; put it there, or {wanted.archive}, "
        f"from {wanted.url}{other_files(root)}"
    )


def _search(file: str, archive: str, root: Path) -> Path | None:
    """Return the file, unpacked from an archive like `archive` if need be, where users leave such files.

    It may lie beside `root` too: a data set's own folder may be the root.
    """
    folders = [root / PurePath(archive or file).stem, root / _TORCHTEXTS, Path(_TORCHTEXTS), root.absolute().parent]
    names = (file, f"{file}.gz")
    path = search.find_file(root, names, folders)
    if path is None and archive:
        packed = Resource(file, ".", archives=(PurePath(archive).stem, file, PurePath(file).stem))
        if unpack_provided(packed, root, [glob.escape(file)]):
            path = search.find_file(root, names, folders)
    return path
