"""What can be wrong with data."""

from __future__ import annotations


class DataError(ValueError):
    """Data that is missing or unusable; the message is one line: what, where, and how to mend it."""
