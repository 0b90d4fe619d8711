"""Calls of code that is not ours, in the middle of a run whose numbers must not depend on it."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

#: Ctrl-C, and what ends a process: with another handler than ours, a run would end without a checkpoint.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # not every system has all
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back what the block may change in the process and a run depends on, however the block ends.

    These are the states of the process-wide generators, torch's settings, the working directory, which results may be
    relative to, and the handlers of signals.
    """
    on_gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python, numpy = random.getstate(), np.random.get_state()
    threads, dtype, gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    folder = _folder()
    # Only the main thread may set handlers, so elsewhere the block cannot change them either.
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    with torch.random.fork_rng(devices=on_gpus):
        try:
            yield
        finally:
            for signum, handler in handlers.items():
                if handler is not None and signal.getsignal(signum) is not handler:
                    signal.signal(signum, handler)
            random.setstate(python)
            np.random.set_state(numpy)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
            if folder is not None and _folder() != folder:
                os.chdir(folder)


def _folder() -> str | None:
    """Return the working directory; None if it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None
