"""Mistakes in a command, as opposed to faults of the program, and the words to report them in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A mistake that the user can correct. The message is one line: what, where, and how to correct it.

    The entry points print it as `error: ...` on stderr and exit with code 2, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # what the user typed may contain line breaks


class ConfigError(UsageError):
    """A key or a value of the configuration, or of `--set`, that cannot be used."""


class NumbersError(UsageError):
    """Training has produced a number that is not finite, so there is no point in continuing."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is closest to `name`, ignoring case; None if none is close."""
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.7)
    return lowered[close[0]] if close else None


def remedy(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of a wrong name: the closest one, or else the list of all."""
    known = list(known)
    close = closest(name, known)
    return f'did you mean "{close}"?' if close else f"the right ones are {', '.join(known)}"


def reason(error: OSError) -> str:
    """Return what the system says went wrong, such as `Permission denied`."""
    return error.strerror or type(error).__name__
