"""How a command ends: what it leaves, a line about what went wrong, and a code for the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ALPackage import RankError, StageError
from ALPackage.errors import LayerError, UnfitLayersError
from data import DataError

from ..config.launch import note_cause
from ..errors import UsageError
from ..report.comparison import comparison_table
from ..report.summary import MethodSummary

#: What can be wrong with a command or its data, as opposed to with the program.
MISTAKES = (UsageError, DataError)


def mistake_in(error: BaseException | None) -> Exception | None:
    """Return the mistake that an exception stands for, wherever it was found; None for a fault of the program."""
    # What fails in a worker of the pipeline is as much the user's mistake as what fails here.
    if isinstance(error, StageError) and isinstance(error.__cause__, MISTAKES):
        return error.__cause__
    of_a_layer = isinstance(error, StageError) and isinstance(error.__cause__, LayerError)  # told with its name
    of_a_plugin = isinstance(error, (LayerError, UnfitLayersError))
    if of_a_layer or of_a_plugin or (isinstance(error, RankError) and error.mistake):
        return UsageError(str(error))
    return error if isinstance(error, MISTAKES) else None


@dataclass(frozen=True)
class Outcome:
    """What a command leaves: the figures per method, the files, and the signal that interrupted it, if one did."""

    title: str
    summaries: list[MethodSummary]
    files: list[Path]
    interrupted: KeyboardInterrupt | None
    resumable: bool


class ExitCode:
    """A context manager: at the end of the block, reports the outcomes and turns an expected exception into a code.

    0: done. 2: a mistake in the arguments, the config or the data, in one line. 128 and the number of the signal
    that interrupted it: 130 for Ctrl-C. Any other exception is a fault of the program, and passes.
    """

    def __init__(self, behind: Callable[[], Exception | None] | None = None) -> None:
        """`behind`: returns what a signal has been an answer to, such as the end of another process, if it has."""
        self._behind = behind
        self.code = 0
        #: What went wrong, in one line.
        self.words = ""
        #: What the commands in the block left, those before a failure included.
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> ExitCode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        error = mistake_in(error) or error
        # Of another process: there the traceback was printed, if there is one.
        elsewhere = isinstance(error, RankError) or (isinstance(error, StageError) and error.rank is not None)
        if error is not None and not elsewhere and not isinstance(error, (*MISTAKES, KeyboardInterrupt)):
            note_cause(f"{type(error).__name__}: {error}")
            return False
        self._report(error)
        return True

    def _report(self, error: BaseException | None) -> None:
        # Tables first: what was finished counts, whatever happened afterwards.
        for outcome in self.outcomes:
            if outcome.summaries:
                print(f"\n{outcome.title}\n{comparison_table(outcome.summaries)}")
        files = [path for outcome in self.outcomes for path in outcome.files]
        if files:
            print("\nresults:", *(f"  {path}" for path in files), sep="\n", flush=True)
        # A signal while training is kept in the outcome, with the tables; one before that is the exception itself.
        interrupted = error if isinstance(error, KeyboardInterrupt) else None
        for outcome in self.outcomes:
            interrupted = interrupted or outcome.interrupted
        if interrupted is not None and self._behind is not None and (cause := self._behind()) is not None:
            error, interrupted = mistake_in(cause) or cause, None
        if interrupted is not None:
            self.code = getattr(interrupted, "exit_code", 130)
            kept = "the files above hold every epoch that was finished" if files else "before the first epoch was done"
            more = ""
            if self.outcomes and self.outcomes[-1].resumable:
                more = "; the same command with --resume continues from the last checkpoint"
            self.words = f"interrupted: {kept}{more}"
            print(self.words, file=sys.stderr)
        elif error is not None:
            self.code = 2 if isinstance(error, MISTAKES) else 1
            self.words = " ".join(str(error).splitlines())  # names may hold line breaks
            print(f"error: {self.words}", file=sys.stderr)
        if self.code:
            note_cause(self.words)
