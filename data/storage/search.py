"""Find a file of a known name where users leave it: in the data root, or in a folder of the root."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .folders import kind, names_in


def find_file(root: Path, names: Sequence[str], folders: Iterable[Path] = ()) -> Path | None:
    """Return the first file that is called like one of `names`, earlier names first; None if there is none.

    Looked at are `root`, the `folders`, and then every folder of `root` that may be read. Raises DataError if
    `root` or one of `folders` may not be looked into.
    """
    others: list[Path] = []
    if kind(root) == "folder" and os.access(root, os.R_OK):
        # In these it lies only by chance: those without rights are none of ours.
        others = [root / name for name in names_in(root) if os.access(root / name, os.R_OK | os.X_OK)]
    for folder in (root, *folders, *others):
        if kind(folder) == "folder":
            for name in names:
                if kind(folder / name) == "file":
                    return folder / name
    return None
