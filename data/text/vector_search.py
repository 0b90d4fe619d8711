"""Find the file of word vectors that `pretrained_model` names, where users leave such files."""

from __future__ import annotations

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
from .vector_names import EXPECTED, GLOVE, Published, glove_6b, published

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
    path = None if model == GLOVE else _own_file(model, root)
    if path is None:
        wanted = glove_6b(dim) if model == GLOVE else published(model)
        if wanted is None:
            raise DataError(
                f"pretrained_model: no file {json.dumps(model)} in the working directory {Path.cwd()} nor in {root}; "
                f"expected {EXPECTED}"
            )
        if wanted.dim != dim:
            raise DataError(_mismatch(f"pretrained_model {wanted.name}", wanted.dim, dim))
        path = _published_file(wanted, root)
        if path is None and model != GLOVE:
            raise DataError(
                f"pretrained_model {wanted.name}: no {wanted.file} in {root}; put it there, or {wanted.archive}, "
                f"from {wanted.url}{other_files(root)}"
            )
    if path is not None and (there := dimension(path)) != dim:
        raise DataError(_mismatch(str(path), there, dim))
    return path


def other_files(root: Path) -> str:
    """Return the end of a message: which other files of word vectors lie in `root`; empty if there are none."""
    names = [name for name in names_in(root) if _LIKE_VECTORS.fullmatch(name)] if kind(root) == "folder" else []
    if not names:
        return ""
    return f". There is {', '.join(names[:4])}: to use it, set pretrained_model to its name and embedding_dim to match"


def _mismatch(what: str, there: int, dim: int) -> str:
    return (
        f"{what}: its vectors have {there} numbers, but embedding_dim is {dim}; "
        f"set embedding_dim to {there}, or choose another file"
    )


def _own_file(model: str, root: Path) -> Path | None:
    for path in (Path(os.path.expanduser(model)), root / model):
        found = kind(path)
        if found == "folder":
            raise DataError(f"pretrained_model: {path} is a folder; name a file of word vectors in it")
        if found:
            return path
    return None


def _published_file(wanted: Published, root: Path) -> Path | None:
    """Return the file, unpacked if need be. It may lie beside `root` too: a data set's own folder may be the root."""
    folders = [root / PurePath(wanted.archive).stem, root / _TORCHTEXTS, Path(_TORCHTEXTS), root.absolute().parent]
    names = (wanted.file, f"{wanted.file}.gz")
    stems = dict.fromkeys(re.sub(r"\.(zip|gz|txt|vec)$", "", name) for name in (wanted.archive, wanted.file))
    packed = Resource(wanted.name, ".", archives=(*stems, wanted.file))
    path = search.find_file(root, names, folders)
    if path is None and unpack_provided(packed, root, [wanted.file]):
        path = search.find_file(root, names, folders)
    return path
