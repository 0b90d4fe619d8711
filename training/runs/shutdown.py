"""Ctrl-C and other signals that end a run: after the step at hand, with a checkpoint; outside of training at once."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

#: Seconds that a step may still take after a signal; then the run ends where it is, at its last checkpoint.
GRACE = 7.0
#: Seconds after which the process ends, whatever it is at.
LIMIT = 9.0
#: Seconds within which a signal that comes again is the same one: `timeout` and a closed terminal send theirs twice.
SAME = 0.5
#: Those that would end the process without a checkpoint: Ctrl-C, a request, a terminal that closes, and what a queue
#: system sends ahead of its limits. SIGQUIT stays what it is, a way to end a process at once.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)  # not every system has all
)
#: What a person sends again in order not to wait; the others are repeated by whoever sends them.
INSISTENT = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def loading() -> Iterator[None]:
    """Let Ctrl-C end the process silently inside the block: libraries take seconds to load, and nothing is lost yet."""
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_python:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    if by_python:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_process(code: int) -> NoReturn:
    """End the process with `code`; at once where a rank fails, or a layer is in a step that nobody waits for.

    Python's own end would abort the process if a thread is inside of torch then, and the code would be another one. So
    it may be with a thread that waits for a process that does not answer. It also takes seconds on a busy machine, to
    give back what the system takes back anyway.
    """
    fails = code != 0 and os.environ.get("WORLD_SIZE", "1") != "1"
    if fails or any(getattr(thread, "trains_layers", False) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_code` is what a shell expects after it: 128 and its number, 130 for Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class GracefulShutdown:
    """While entered, on the main thread, `SIGNALS` raise `Interrupted`, or wait for a `deferred` block.

    A second Ctrl-C or SIGTERM does not wait. After `LIMIT` seconds the process ends wherever it is: Python handles a
    signal only between two of its own instructions, and a single operation may take long. A signal that the process was
    started to ignore stays ignored: Ctrl-C for what a shell runs in the background, SIGHUP under `nohup`.

    Args:
        last: Whether signals change nothing any more after the block: how the process ends is known then.
    """

    def __init__(self, *, last: bool = False) -> None:
        self._last = last
        self._signum: int | None = None
        #: Of the first signal, inside of a deferred block or not.
        self._first: int | None = None
        self._since = 0.0
        self._overdue = False
        self._deferring = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether the block should end."""
        return self._signum is not None

    @property
    def received(self) -> int | None:
        """The first signal, wherever the block was."""
        return self._first

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

    def forward(self, signum: int) -> None:
        """Take a signal that another process of the command has received for one of its own, unless it has one."""
        if self._first is None:
            os.kill(os.getpid(), signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first, self._since = signum, time.monotonic()
            if self._deferring:
                self._signum = signum
                return
        elif not self._overdue:
            same = signum == self._first and time.monotonic() - self._since < SAME
            if same or signum not in INSISTENT:
                return
        raise Interrupted(self._first)

    def __enter__(self) -> GracefulShutdown:
        # Python allows handlers on the main thread only; tests and notebooks may run a command elsewhere.
        if threading.current_thread() is threading.main_thread():
            handled = [signum for signum in SIGNALS if _ours(signum)]
            # Python writes the number of a signal here at once, even while the main thread is stuck in an operation.
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(set(handled),), name="shutdown", daemon=True).start()
            self._before = {signum: signal.signal(signum, self._receive) for signum in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_IGN if self._last else signal.SIG_DFL if handler is None else handler)
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
                self._overdue = True
                _repeat(received[0])
            # The main thread is in a single operation that nothing interrupts; nobody else can end the process.
            if not self._ended.wait(LIMIT - GRACE):
                words = "interrupted: it took too long to end; --resume continues from the last checkpoint"
                try:
                    print(words, file=sys.stderr, flush=True)
                finally:
                    os._exit(128 + received[0])


def ignore_signals() -> None:
    """Let no signal change how the process ends; on the main thread."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def _ours(signum: int) -> bool:
    """Tell whether the signal is ours to handle: it is not ignored, nor is it one that somebody gave a meaning."""
    handler = signal.getsignal(signum)
    return handler is not signal.SIG_IGN if signum in INSISTENT else handler is signal.SIG_DFL


def _repeat(signum: int) -> None:
    """Send the signal to the main thread once more, which also ends its waiting."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signum)
    else:
        _thread.interrupt_main(signal.Signals(signum))
