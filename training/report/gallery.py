"""The pictures of a command: drawn now and then while it trains, and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from .pictures import draw
from .run_log import RunLog


class Gallery:
    """Draws the methods of a command into `out`. A file that cannot be read or written costs only the pictures."""

    #: Seconds between two drawings while training continues: drawing takes one or two.
    PAUSE = 60.0

    def __init__(self, out: Path, dataset: str, model: str) -> None:
        self.out, self.dataset, self.model = out, dataset, model
        self.pictures: list[Path] = []
        #: Other files that belong to the command.
        self.extras: list[Path] = []
        #: Why there are no pictures, if there are none.
        self.complaint: str | None = None
        self._drawn = time.monotonic()

    def draw(self, logs: Sequence[RunLog]) -> None:
        """Draw the methods that have done an epoch, and what an earlier command left that can be compared."""
        methods = [log.method for log in logs if log.rows]
        if not methods:
            return
        try:
            self.pictures = draw(self.out, self.dataset, self.model, methods)
            self.complaint = None
        except UsageError as error:
            self.complaint = f"no pictures: {error}"
        self._drawn = time.monotonic()

    def draw_now_and_then(self, logs: Sequence[RunLog]) -> None:
        """Draw if the last drawing is a while ago."""
        if time.monotonic() - self._drawn >= self.PAUSE:
            self.draw(logs)
