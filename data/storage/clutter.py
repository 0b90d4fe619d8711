"""What operating systems and editors leave beside data: never part of a data set, so readers skip it and count it."""

from __future__ import annotations

_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir", "icon\r", "lost+found"}
)


def is_clutter(name: str) -> bool:
    """Tell whether a file or folder of this name is no data: hidden, a thumbnail cache, a resource fork, a backup."""
    folded = name.casefold()
    return folded.startswith(".") or folded in _NAMES or folded.endswith((":zone.identifier", "~"))
