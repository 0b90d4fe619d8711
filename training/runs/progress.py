"""What shows on a terminal, or in a notebook, how far a run is: a line for the whole run, and one for the epoch."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from tqdm import TqdmWarning

from data.batches import Batches

with warnings.catch_warnings():
    # In a notebook without ipywidgets it warns, and shows text instead, which is all that there is to say.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

#: Whether tqdm's bars are widgets of a notebook.
WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
#: Epochs from which the time left is estimated: the newest, because what else the machine does changes.
NEWEST = 3
#: Seconds between two looks at what changes slowly.
PAUSE = 0.5


class Progress:
    """How much of a command is done, and how long the rest will take.

    `total`, `done`: the epochs of all turns of all methods, and how many of them earlier processes did.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        #: How many lines there is a place for: one for the run and one for the epoch, one for both, or none.
        self.lines = count_lines()
        self._method = ""
        #: What the epochs took, evaluation and all, with their methods.
        self._took: list[tuple[str, float]] = []
        self._begun: float | None = None
        self._line: Line | None = None

    @contextmanager
    def turn(self, method: str) -> Iterator[None]:
        """Show the line of the run inside the block, in which a turn of `method` is trained."""
        self._method = method
        self._line = Line(self.lines == 2, position=0, total=self.total, initial=self.done, bar_format="{desc} |{bar}|")
        try:
            self.refresh()
            yield
        finally:
            self._line.close()
            self._line = self._begun = None

    def begin_epoch(self) -> None:
        """Start the clock of an epoch."""
        self._begun = time.monotonic()
        self.refresh()

    def end_epoch(self, whole: bool) -> None:
        """Count an epoch; one that an earlier process began is not `whole`, and says nothing of the others."""
        if whole and self._begun is not None:
            self._took.append((self._method, time.monotonic() - self._begun))
        self._begun = None
        self.done += 1
        self.refresh()

    def say(self, text: str) -> None:
        """Print a line to stdout, above those on the terminal."""
        with self.aside():
            print(text, flush=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the line away inside the block, so that what others print is not torn."""
        if self._line is not None:
            self._line.clear()
        try:
            yield
        finally:
            self.refresh()

    def refresh(self) -> None:
        """Bring the line up to date."""
        if self._line is not None:
            self._line.show(self.text(), self.done)

    def text(self) -> str:
        """Return the epochs done and the time left, in words."""
        left = self.seconds_left()
        return f"run: {self.done}/{self.total} epochs" + (f", {tqdm.format_interval(left)} left" if left else "")

    def seconds_left(self) -> float | None:
        """Return how long the rest will take, from the method's newest epochs; None before there is one.

        Other methods stand in for one without an epoch, and so does this one for those that come after it.
        """
        own = [seconds for method, seconds in self._took if method == self._method]
        newest = (own or [seconds for _, seconds in self._took])[-NEWEST:]
        if not newest:
            return None
        spent = 0.0 if self._begun is None else time.monotonic() - self._begun
        # If this epoch takes longer than the others did, those after it will too.
        each = max(sum(newest) / len(newest), spent)
        return each * (self.total - self.done) - spent


class ProgressBar:
    """The line of an epoch: samples/s and the last layer's losses.

    Losses are read from the device twice a second at most, because each reading makes the host wait.
    """

    def __init__(self, label: str, batches: Batches, run: Progress) -> None:
        sizes = [stop - start for start, stop in batches.bounds]
        self._sizes = iter(sizes[batches.done :])
        self._label, self._run = label, run
        self._line = Line(
            run.lines > 0,
            position=run.lines - 1,
            unit=" samples",
            total=len(batches.split),
            # What an earlier process trained counts as done.
            initial=sum(sizes[: batches.done]),
        )
        self._line.show(self._text())
        self._looked = 0.0

    def __call__(self, losses: Mapping[str, Tensor]) -> None:
        self._line.advance(next(self._sizes))
        if self._line.visible and time.monotonic() - self._looked > PAUSE:
            self._looked = time.monotonic()
            values = ", ".join(f"{name}={float(loss):.3f}" for name, loss in losses.items())
            self._line.show(self._text(), values=values)
            self._run.refresh()

    def _text(self) -> str:
        return f"{self._run.text()} | {self._label}" if self._run.lines == 1 else self._label

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()


class Line:
    """A bar of tqdm's, if it is `visible`. One that can no longer be written is given up: nothing depends on it."""

    def __init__(self, visible: bool, **options: Any) -> None:
        self._bar: Any = None
        if visible:
            with self._attempt():
                self._bar = tqdm(leave=False, dynamic_ncols=True, **options)

    @property
    def visible(self) -> bool:
        """Whether anybody can see it."""
        return self._bar is not None

    def advance(self, count: int) -> None:
        """Count what has been done since."""
        if self._bar is not None:
            with self._attempt():
                self._bar.update(count)

    def show(self, text: str, done: int | None = None, values: str = "") -> None:
        """Write the line with `text` before the bar and `values` behind it; `done`: how much is done by now."""
        if self._bar is not None:
            with self._attempt():
                self._bar.n = self._bar.n if done is None else done
                self._bar.set_postfix_str(values, refresh=False)
                self._bar.set_description_str(text)

    def clear(self) -> None:
        """Take the line away until it is shown again."""
        if self._bar is not None:
            with self._attempt():
                self._bar.clear()

    def close(self) -> None:
        """Take the line away for good."""
        if self._bar is not None:
            with self._attempt():
                self._bar.close()
            self._bar = None

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # closed, a reader that is gone, a character that it does not have
            if self._bar is not None:
                self._bar.disable = True  # tqdm would try again when the bar is deleted
            self._bar = None


def count_lines() -> int:
    """Return how many lines can be kept up to date on stderr: two, one, or none where nobody sees them."""
    in_kernel = type(sys.stderr).__module__.startswith("ipykernel.")
    if WIDGETS:
        return 2 if in_kernel else 0
    try:
        terminal = sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        terminal = False
    if not terminal and not in_kernel:
        return 0
    # These do not move the cursor up: a notebook, also for a command that it starts, and the simplest terminals.
    return 1 if in_kernel or "JPY_PARENT_PID" in os.environ or os.environ.get("TERM") == "dumb" else 2
