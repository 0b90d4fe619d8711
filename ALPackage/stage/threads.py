"""What a new thread does not inherit, and how many threads an operation may use.

Grad mode, autocast, the current device and the number of intra-op threads belong to a thread. A schedule whose layers
work on threads of their own sets them up there, so that a layer computes what it would compute on the caller's thread.
What else is carried over is in `caller`.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any

import torch

from ..devices import available_cores as available_cores  # the `as` lets others import it from here
from .channel import take


def asked_threads() -> int | None:
    """Return the number of threads in OMP_NUM_THREADS, if it holds one."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def worker_threads() -> int:
    """Return the intra-op threads of one worker: OMP_NUM_THREADS if set, else 1.

    The order of a sum depends on it, so it does not follow the machine: the same run gives the same numbers elsewhere.
    """
    return asked_threads() or 1


def process_threads() -> int:
    """Return the intra-op threads of a process that works alone: OMP_NUM_THREADS if set, else one per core."""
    return asked_threads() or available_cores()


class IntraOpThreads:
    """A context in which the calling thread uses `threads` intra-op threads.

    A generator that computes in it calls `restore` before every yield and `set` after it. So the caller's own work
    between two items runs with the caller's count, and generators that are resumed in turns, or closed in another order
    than they were opened in, neither take each other's count nor leave it behind.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._before = threads

    def set(self) -> None:
        """Note the count that holds, and use `threads`."""
        self._before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def restore(self) -> None:
        """Use the count that was noted."""
        torch.set_num_threads(self._before)

    def __enter__(self) -> IntraOpThreads:
        self.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


@contextmanager
def worker_settings(device: torch.device, threads: int, stream: Any = None) -> Iterator[None]:
    """Make this thread a worker for `device`, on `stream` if one is given."""
    # A thread's first operation, or question, gives it the count that any thread asked for last. Asked for now, that is
    # over before the worker's own count is set; else the caller's could take its place.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    on_stream = torch.cuda.stream(stream) if stream is not None else nullcontext()
    # Backward stays on this thread, or two stages on one GPU would queue up in autograd's one thread per device.
    with torch.autograd.set_multithreading_enabled(False), on_device, on_stream:
        yield


#: Seconds that a thread whose start was interrupted has to show itself, and that a finished one has to go away.
MOMENT = 0.1
#: Seconds that workers have, together, to end their steps before the interpreter ends.
EXIT_DEADLINE = 10.0


class WorkerThread(threading.Thread):
    """A daemon thread that can tell for certain whether its work is over.

    `Thread.join` cannot where Ctrl-C matters: in Python before 3.13, a KeyboardInterrupt that strikes while it waits
    marks the thread as ended although it runs on, and whoever then touches a layer does so beside the thread.
    """

    #: Tells these threads from the caller's (see `busy`).
    trains_layers = True

    def __init__(self, target: Callable[..., None], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        self._process = os.getpid()
        self._over = False
        self._signal: SimpleQueue[None] = SimpleQueue()
        #: Has the work end after the step at hand.
        self.stop: Callable[[], None] = _nothing

    def run(self) -> None:
        """Do the work, and signal the end of it."""
        try:
            super().run()
        finally:
            self._over = True
            self._signal.put(None)

    def finished(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` s, or without limit, for the work to end, and return whether it has.

        A thread that never started counts as finished; one whose start was interrupted shows itself within a moment,
        or never. In a process that was forked off, the thread does not exist.
        """
        if os.getpid() != self._process:
            return True
        shown = time.monotonic() + MOMENT
        while self.ident is None:
            if time.monotonic() > shown:
                return True
            time.sleep(0.001)
        if not self._over:
            try:
                take(self._signal, timeout)
            except Empty:
                return self._over
            self._signal.put(None)  # for another thread that waits here
        self.join(MOMENT)
        return True


def _nothing() -> None:
    """Leave alone work that ends by itself."""


@atexit.register
def end_workers() -> None:
    """Let every worker end its step; the interpreter aborts the process if it ends while one is inside of torch."""
    workers = [thread for thread in threading.enumerate() if isinstance(thread, WorkerThread)]
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + EXIT_DEADLINE
    for worker in workers:
        worker.finished(max(0.0, deadline - time.monotonic()))


class Autocast:
    """The autocast state of the thread that makes this object, to be entered on others."""

    def __init__(self) -> None:
        #: (device type, dtype) of each that is enabled.
        self.settings = [(kind, dtype) for kind in ("cpu", "cuda") for on, dtype in [_state(kind)] if on]

    def context(self) -> AbstractContextManager[None]:
        """Return a context that has this state."""
        return self._context() if self.settings else nullcontext()

    def outside(self) -> AbstractContextManager[None]:
        """Return a context without autocast, as a worker's backward pass has it, for the thread that has this state."""
        return self._outside() if self.settings else nullcontext()

    @contextmanager
    def _outside(self) -> Iterator[None]:
        with ExitStack() as states:
            for kind, _ in self.settings:
                states.enter_context(torch.autocast(kind, enabled=False))
            yield

    @contextmanager
    def _context(self) -> Iterator[None]:
        with ExitStack() as states:
            for kind, dtype in self.settings:
                # Without the cache of cast weights: it would outlive an update, and the layer go on with old weights.
                states.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
            yield


def _state(kind: str) -> tuple[bool, Any]:
    """Return (enabled, dtype) of autocast on this thread; torch before 2.4 has other names for the question."""
    if hasattr(torch, "get_autocast_dtype"):
        return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    if kind == "cpu":
        return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    return torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
