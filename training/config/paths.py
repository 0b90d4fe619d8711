"""Paths that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from training.errors import UsageError

#: As long as the names of the files that we look for in a folder.
LONG = "x" * 100


def user_path(text: str) -> Path:
    """Return the path that a user has named, with `~` expanded. Raises UsageError where no file can have that name."""
    refusal = UsageError(f"{text[:200]!a} cannot be the name of a file or a folder; give another")
    try:
        if b"\0" in os.fsencode(text):
            raise refusal
        path = Path(text).expanduser()
        os.lstat(path / LONG)  # what is too long is an error even for those who only look whether it is there
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, ValueError, RuntimeError):  # too long; what cannot be encoded; a user that is not there
        raise refusal from None
    return path
