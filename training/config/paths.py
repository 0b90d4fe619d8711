"""Paths that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UsageError

#: As long as the longest file name that we look for in a folder.
LONG = "x" * 100


def user_path(text: str) -> Path:
    """Return the path that a user has named, with `~` expanded. Raises UsageError if no file can have that name."""
    refusal = UsageError(f"{text[:200]!a} cannot be the name of a file or a folder; give another")
    try:
        if b"\0" in os.fsencode(text):
            raise refusal
        path = Path(text).expanduser()
        os.lstat(path / LONG)  # with a path that is too long, even a check whether it exists fails
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, ValueError, RuntimeError):  # too long; not encodable; `~name` of an unknown user
        raise refusal from None
    return path
