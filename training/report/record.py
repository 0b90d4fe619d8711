"""What one command has recorded so far: the results of its methods, and the pictures of them."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import UsageError
from .pictures import draw
from .results import MethodSummary, Results


class Record:
    """The `Results` of a command's methods, in the order in which they ran, and their pictures in `out`."""

    #: Seconds from one drawing to the next while training goes on: drawing takes one or two.
    PAUSE = 60.0

    def __init__(self, out: Path, dataset: str, model: str) -> None:
        self.out, self.dataset, self.model = out, dataset, model
        self.results: list[Results] = []
        self.pictures: list[Path] = []
        self.extras: list[Path] = []
        """Other files that belong to the run."""
        self._complaint: str | None = None
        self._drawn = time.monotonic()

    def draw(self) -> None:
        """Draw the methods of this command, and one of an earlier command that is comparable.

        A file that cannot be read or written costs the pictures, with a notice, and not the run.
        """
        shown = {part.method for part in self.results if part.rows}
        if not shown:
            return
        for part in self.results:
            shown.update(part.comparable())
        try:
            self.pictures = draw(self.out, self.dataset, self.model, shown)
            self._complaint = None
        except UsageError as error:
            self._complaint = f"no pictures: {error}"
        self._drawn = time.monotonic()

    def draw_now_and_then(self) -> None:
        """Draw if the last drawing is a while ago."""
        if time.monotonic() - self._drawn >= self.PAUSE:
            self.draw()

    def summaries(self) -> list[MethodSummary]:
        """Return the figures of the methods that have done an epoch."""
        return [summary for part in self.results if (summary := part.summary()) is not None]

    def files(self) -> list[Path]:
        """Return the files that were written."""
        tables = [part.csv_path for part in self.results if part.rows]
        return [*tables, self.results[0].json_path, *self.pictures, *self.extras] if tables else []

    def notices(self) -> list[str]:
        """Return what the user should be told about the files."""
        found = [notice for part in self.results for notice in part.notices]
        return list(dict.fromkeys([*found, self._complaint] if self._complaint else found))
