"""The first failure of a pipeline's workers, which ends all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FirstFailure:
    """The failure that is raised in the caller: the first one, because later ones are often only its consequences.

    `stop`: called with every failure, to wake and end everyone else.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self._error: Exception | None = None
        self._lock = threading.Lock()

    @property
    def first(self) -> Exception | None:
        """The failure, if there is one that nobody has taken."""
        return self._error

    def report(self, error: Exception) -> None:
        """Keep `error` if it is the first one, and stop the pipeline."""
        with self._lock:
            if self._error is None:
                self._error = error
        self.stop()

    def pop(self) -> Exception | None:
        """Return the failure, if there is one, and forget it: its traceback holds tensors."""
        error, self._error = self._error, None
        return error
