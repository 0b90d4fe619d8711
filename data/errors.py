"""What can be wrong with data."""

from __future__ import annotations


class DataError(ValueError):
    """Data is missing or unusable. The message is one line: what is wrong, where, and how to fix it."""

    def __init__(self, message: str) -> None:
        """Keep `message` to its line, whatever is in a file's name."""
        super().__init__("\\n".join(message.splitlines()))
