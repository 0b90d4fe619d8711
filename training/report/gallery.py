"""What a command shows of its results while it trains and at its end: the pages, and pictures as files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from .html.write import remove_stale_pages, write_run
from .pictures import draw
from .run_log import RunLog


class Gallery:
    """Shows the methods of a command in `out`. A file that cannot be read or written costs only what shows it."""

    #: Seconds between two drawings while training continues: drawing takes one or two.
    PAUSE = 60.0

    def __init__(self, out: Path, dataset: str, model: str) -> None:
        self.out, self.dataset, self.model = out, dataset, model
        self.pictures: list[Path] = []
        self.pages: list[Path] = []
        #: Other files that belong to the command.
        self.extras: list[Path] = []
        self._complaints: dict[str, str] = {}
        self._drawn = time.monotonic()
        remove_stale_pages(out)

    @property
    def complaint(self) -> str | None:
        """Why there are no pictures or no report, if there are none."""
        return "; ".join(f"no {what}: {why}" for what, why in self._complaints.items()) or None

    def draw(self, logs: Sequence[RunLog]) -> None:
        """Show the methods that have done an epoch, and what an earlier command left that can be compared."""
        methods = [log.method for log in logs if log.rows]
        if not methods:
            return
        self._write(methods)
        try:
            self.pictures = draw(self.out, self.dataset, self.model, methods)
            self._complaints.pop("pictures", None)
        except UsageError as error:
            self._complaints["pictures"] = str(error)
        self._drawn = time.monotonic()

    def draw_now_and_then(self, logs: Sequence[RunLog]) -> None:
        """Bring the pages up to date, which takes no time, and the pictures if the last drawing is a while ago."""
        if time.monotonic() - self._drawn >= self.PAUSE:
            self.draw(logs)
        else:
            self._write([log.method for log in logs if log.rows])

    def _write(self, methods: Sequence[str]) -> None:
        try:
            self.pages = write_run(self.out, self.dataset, self.model, methods)
            self._complaints.pop("report", None)
        except UsageError as error:
            self._complaints["report"] = str(error)
        # Whatever is wrong with a page, or with a file that somebody else put beside the results: hours of training are
        # worth more. The note says it, and `python -m training.report` shows where it comes from.
        except Exception as error:
            self._complaints["report"] = f"{type(error).__name__}: {error}"
