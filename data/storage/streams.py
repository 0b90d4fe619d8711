"""The standard streams of a command: whatever they are, the command goes on and its exit code says what was lost.

A pipe may have no reader any more, a disk behind `> log` may be full, a terminal may be gone, a stream may be closed
from the start, and few encodings have every character. None of this may end hours of training or leave a traceback:
results are in files; at worst, what is printed is lost. Every entry point runs its main function through `exit_code`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

#: As a shell reports a command that SIGPIPE has ended: the reader of a pipe went away, which is no mistake.
READER_LEFT = 141
#: A stream could not be written for another reason.
NOT_WRITTEN = 2
ENCODING_ERRORS = "al.readable"
#: What we print that ASCII does not have.
PLAIN = {"±": "+/-", "−": "-"}


def exit_code(main: Callable[[], int | None]) -> int:
    """Run `main`, whose output may get lost on the way, and return the exit code of the process.

    That of `main` (also where it leaves by `sys.exit`). Where that is 0 and the standard output could not be written:
    `READER_LEFT` without a word, or `NOT_WRITTEN` with a line on stderr.
    """
    with _guarded() as lost:
        try:
            code = main() or 0
        except SystemExit as end:
            # As the interpreter treats it: a text is a message.
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == 0 and (error := lost()) is not None:
            if error.errno == errno.EPIPE:
                return READER_LEFT
            print(
                f"error: the standard output cannot be written ({error.strerror}): some of what was printed is "
                "missing; the files are complete",
                file=sys.stderr,
            )
            return NOT_WRITTEN
        return code


@contextlib.contextmanager
def _guarded() -> Iterator[Callable[[], OSError | None]]:
    """Replace stdout and stderr by streams that never fail; yield a function that says why stdout has lost something.

    Streams that are not the process's own, such as a notebook's or a test's, stay as they are.
    """
    codecs.register_error(ENCODING_ERRORS, _readable)
    closed = _open_closed()
    before = sys.stdout, sys.stderr
    outlets = {}
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # it lives as long as the process
        if type(stream) is io.TextIOWrapper:
            outlets[name], safe = _safe(stream)
            setattr(sys, name, safe)
            if descriptor in closed:
                outlets[name].error = OSError(errno.EBADF, "it is closed")

    def lost() -> OSError | None:
        sys.stdout.flush()
        return outlets["stdout"].error if "stdout" in outlets else None

    try:
        yield lost
    finally:
        for name in outlets:
            getattr(sys, name).flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> list[int]:
    """Open the standard descriptors that are closed on the null device, and return which they were.

    Else the next file that is opened gets the number of one, and a library's message goes into it.
    """
    closed = []
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            closed.append(descriptor)
    return closed


def _safe(stream: io.TextIOWrapper) -> tuple[_Outlet, io.TextIOWrapper]:
    """Return a stream to the same place that never fails, and what it writes through."""
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    outlet = _Outlet(stream.fileno(), "w", closefd=False)
    outlet.name = stream.name
    # Without a buffer for `python -u`, as Python itself does it.
    buffer: Any = outlet if stream.write_through else io.BufferedWriter(outlet)
    safe = io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=ENCODING_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return outlet, safe


class _Outlet(io.FileIO):
    """A descriptor that takes whatever is written; `error` is the first failure, after which output may be missing."""

    error: OSError | None = None

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Write all of `data`, or drop what cannot be written."""
        rest = memoryview(data).cast("B")
        whole = len(rest)
        while rest:
            try:
                written = super().write(rest)
            except OSError as error:
                self.error = self.error or error
                break
            if written is None:  # another process that shares the pipe has made it non-blocking
                select.select([], [self], [])
            else:
                rest = rest[written:]
        return whole


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the encoding does not have: readable, and never a byte that is not text.

    A byte of a file name that is not UTF-8 becomes `\\xff`, as a shell writes it.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(map(_plain, found)), error.end


def _plain(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that it could not decode
        return f"\\x{code - 0xDC00:02x}"
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
