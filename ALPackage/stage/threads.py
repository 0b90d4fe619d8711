"""What a new thread does not inherit, and how many threads an operation may use.

Grad mode, autocast, the current device and the number of intra-op threads belong to a thread. A schedule that
lets layers work on threads of their own establishes them there, so that a layer computes what it would compute
on the caller's thread.
"""

from __future__ import annotations

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


def default_threads(layers: int) -> int:
    """Return the intra-op threads of one worker: OMP_NUM_THREADS if set, else an equal share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, available_cores() // layers)


@contextmanager
def intra_op_threads(threads: int) -> Iterator[None]:
    """Use `threads` intra-op threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def worker_settings(device: torch.device, threads: int, stream: Any = None) -> Iterator[None]:
    """Make this thread a worker for `device`, on `stream` if one is given.

    Backward stays on this thread, so that two stages on one GPU do not queue up in autograd's worker.
    """
    torch.set_num_threads(threads)
    where = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    on = torch.cuda.stream(stream) if stream is not None else nullcontext()
    with torch.autograd.set_multithreading_enabled(False), where, on:
        yield


#: Seconds that a thread whose start was interrupted has to show itself, and that one which is done has to go.
MOMENT = 0.1


class WorkerThread(threading.Thread):
    """A daemon thread of which one can tell for certain that its work is over.

    `Thread.join` cannot tell where Ctrl-C matters: in Python before 3.13, a KeyboardInterrupt that strikes while it
    waits marks the thread as ended, though it runs on, and whoever then touches a layer touches it beside the thread.
    """

    def __init__(self, target: Callable[..., None], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        self._over = False
        self._told: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Do the work, and say when it is over."""
        try:
            super().run()
        finally:
            self._over = True
            self._told.put(None)

    def ended(self, seconds: float | None = None) -> bool:
        """Wait for the end of the work, up to `seconds` or for ever, and tell whether it has come.

        A thread that never started has ended; one whose start was interrupted shows itself within a moment, or never.
        """
        shown = time.monotonic() + MOMENT
        while self.ident is None:
            if time.monotonic() > shown:
                return True
            time.sleep(0.001)
        if not self._over:
            try:
                take(self._told, seconds)
            except Empty:
                return self._over
        self.join(MOMENT)
        return True


class Autocast:
    """The autocast state of the thread that makes this object, to be entered on others.

    Its cache of cast weights stays off: it would outlive an update, and a layer would go on with old weights.
    """

    def __init__(self) -> None:
        #: (device type, dtype) of each that is enabled.
        self.settings = [(kind, dtype) for kind in ("cpu", "cuda") for on, dtype in [_state(kind)] if on]

    def entered(self) -> AbstractContextManager[None]:
        """Run the block under that state."""
        return self._entered() if self.settings else nullcontext()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with ExitStack() as states:
            for kind, dtype in self.settings:
                states.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
            yield


def _state(kind: str) -> tuple[bool, Any]:
    """Return (enabled, dtype) of autocast on this thread; torch before 2.4 has other names for the question."""
    if hasattr(torch, "get_autocast_dtype"):
        return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    if kind == "cpu":
        return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    return torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
