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
    """Let Ctrl-C in the block end the process without a word: libraries take seconds to load, nothing is lost yet."""
    python_s = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if python_s:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    if python_s:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_code` is what a shell expects after it (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class GracefulShutdown:
    """While entered, on the main thread, SIGINT and SIGTERM raise `Interrupted`, or wait for a `deferred` block.

    A second one does not wait. After `LIMIT` seconds the process ends wherever it is: Python hears of a signal only
    between two of its own instructions, and an operation may take long. A signal that the process was begun to
    ignore, as a shell does for Ctrl-C and what runs in the background, stays ignored.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferring = False
        self._before: dict[int, Any] = {}
        self._over = threading.Event()

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
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if not self._deferring or self._signum is not None:
            raise Interrupted(signum if self._signum is None else self._signum)
        self._signum = signum

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            heeded = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
            self._ears, mouth = socket.socketpair()
            mouth.setblocking(False)
            self._mouth = mouth
            self._other = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(set(heeded),), name="stopping", daemon=True).start()
            self._before = {signum: signal.signal(signum, self._receive) for signum in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._over.set()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._other)
            self._mouth.close()

    def _watch(self, heeded: set[int]) -> None:
        """Wait for a signal, which the system notes here at once, and see to it that it comes to something."""
        with self._ears:
            while (told := self._ears.recv(1)) and told[0] not in heeded:
                pass
            if not told:
                return
            if self._over.wait(GRACE):
                return
            if self._deferring:
                _again(told[0])
            if not self._over.wait(LIMIT - GRACE):
                words = "interrupted: it took too long to end; --resume goes on from the last checkpoint"
                print(words, file=sys.stderr, flush=True)
                os._exit(128 + told[0])


def _again(signum: int) -> None:
    """Send the signal to the main thread once more, which also ends its waiting."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signum)
    else:
        _thread.interrupt_main(signal.Signals(signum))
