"""Ctrl-C and SIGTERM: training ends after the step at hand, with a checkpoint; everything else ends at once."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Seconds that a step may still take after a signal; then the run ends where it is, at its last checkpoint.
GRACE = 7.0
#: Seconds after which the process ends, whatever it is at.
LIMIT = 9.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def loading() -> Iterator[None]:
    """Let Ctrl-C end the process silently inside the block: libraries take seconds to load, and nothing is lost yet."""
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_python:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    if by_python:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_code` is what a shell expects after it (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class GracefulShutdown:
    """While entered, on the main thread, SIGINT and SIGTERM raise `Interrupted`, or wait for a `deferred` block.

    A second signal does not wait. After `LIMIT` seconds the process ends wherever it is: Python handles a signal only
    between two of its own instructions, and a single operation may take long. A signal that the process was started to
    ignore, as a shell does with Ctrl-C for what runs in the background, stays ignored.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferring = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether the block should end."""
        return self._signum is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Have the first signal only set `requested`, for `GRACE` seconds; after the block it raises `Interrupted`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        # Outside of `finally`: a failure of the block matters more than the signal.
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        # The second signal, or the watchdog's, means now.
        if not self._deferring or self._signum is not None:
            raise Interrupted(signum if self._signum is None else self._signum)
        self._signum = signum

    def __enter__(self) -> GracefulShutdown:
        # Python allows handlers on the main thread only; tests and notebooks may run a command elsewhere.
        if threading.current_thread() is threading.main_thread():
            handled = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
            # Python writes the number of a signal here at once, even while the main thread is stuck in an operation.
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(set(handled),), name="shutdown", daemon=True).start()
            self._before = {signum: signal.signal(signum, self._receive) for signum in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._ended.set()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup_before)
            self._writer.close()  # ends the watchdog

    def _watch(self, handled: set[int]) -> None:
        """Watchdog: `GRACE` seconds after a signal, repeat it; after `LIMIT` seconds, end the process."""
        with self._reader:
            while (received := self._reader.recv(1)) and received[0] not in handled:
                pass
            if not received:
                return
            if self._ended.wait(GRACE):
                return
            # A worker may hang, or a step take minutes: the run ends at its last checkpoint.
            if self._deferring:
                _repeat(received[0])
            # The main thread is in a single operation that nothing interrupts; nobody else can end the process.
            if not self._ended.wait(LIMIT - GRACE):
                words = "interrupted: it took too long to end; --resume continues from the last checkpoint"
                print(words, file=sys.stderr, flush=True)
                os._exit(128 + received[0])


def _repeat(signum: int) -> None:
    """Send the signal to the main thread once more, which also ends its waiting."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signum)
    else:
        _thread.interrupt_main(signal.Signals(signum))
