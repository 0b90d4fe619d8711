"""The trackers of a command. A tracker may fail, hang a while, or meddle with the process: the run goes on the same."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from ..config.trackers import TENSORBOARD, load_tracker
from .module_tracker import ModuleTracker
from .tensorboard import TensorBoard
from .tracker import EpochFigures, TrackedTurn, Tracker
from .undisturbed import undisturbed

#: An exception's message may hold a whole page of a server's answer.
LONGEST = 300


def load_modules(names: Sequence[str]) -> list[Tracker]:
    """Return the trackers of `--tracker` that are modules. Raises UsageError for one that cannot be used."""
    with undisturbed():
        return [ModuleTracker(f"--tracker {name}", load_tracker(name)) for name in names if name != TENSORBOARD]


def open_tensorboard(names: Sequence[str], given: Path | None, default: Path) -> list[Tracker]:
    """Return the tracker of `--tensorboard given`, or of `--tracker tensorboard`, or none. Raises UsageError."""
    if given is not None:
        return [TensorBoard(given, f"--tensorboard {given}")]
    return [TensorBoard(default, f"--tracker {TENSORBOARD}")] if TENSORBOARD in names else []


class Trackers:
    """Tells all trackers; a context manager that closes them.

    What a tracker raises is a note, once for each of its functions. `deferred`: a context manager in which a signal
    waits: a tracker that swallowed it would make Ctrl-C have no effect.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker] = (),
        deferred: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._all = list(trackers)
        self._deferred = deferred
        self._begun: list[Tracker] = []
        self._noted: set[tuple[str, str]] = set()

    @contextmanager
    def turn(self, turn: TrackedTurn) -> Iterator[None]:
        """Begin a turn, and finish it when the block ends or fails; after a signal, `close` does that."""
        try:
            with self._deferred():
                for tracker in self._all:
                    # One that has no run takes no epochs; the next turn tries again.
                    if self._call(tracker, "init", partial(tracker.begin, turn)):
                        self._begun.append(tracker)
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._finish()
            raise
        self._finish()

    def epoch(self, figures: EpochFigures) -> None:
        """Hand on the figures of an epoch."""
        with self._deferred():
            for tracker in self._begun:
                self._call(tracker, "log", partial(tracker.epoch, figures))

    def _call(self, tracker: Tracker, function: str, action: Callable[[], None]) -> bool:
        """Return whether the tracker did it."""
        try:
            with undisturbed():
                action()
        except (Exception, SystemExit) as error:  # whatever it raises, the run is worth more
            self._note(tracker, function, error)
            return False
        return True

    def _note(self, tracker: Tracker, function: str, error: BaseException) -> None:
        if (tracker.option, function) in self._noted:
            return
        self._noted.add((tracker.option, function))
        # Unlike str(), this works with every exception.
        problem = " ".join("".join(traceback.format_exception_only(error)).split())
        if len(problem) > LONGEST:
            problem = f"{problem[:LONGEST]} .."
        print(f"note: {tracker.option}: {function} failed ({problem}); the run goes on without it", flush=True)

    def _finish(self) -> None:
        begun, self._begun = self._begun, []
        with self._deferred():
            for tracker in begun:
                self._call(tracker, "finish", tracker.finish)

    def close(self) -> None:
        """Finish the turn that a signal has ended, if any, and close everything; another signal cuts it short.

        A tracker may upload for as long as a process has to end, so all that is dear to the user comes before.
        """
        with suppress(KeyboardInterrupt):
            self._finish()
        with suppress(KeyboardInterrupt), self._deferred():
            for tracker in self._all:
                self._call(tracker, "close", tracker.close)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
