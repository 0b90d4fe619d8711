"""A plug-in that makes one process of a command fail: FAULT="RANK MODULE:FUNCTION CALL WHAT" in the environment.

Before that call of the function, counted from 1, or after it if the number is negative, the process of that rank gets
the signal WHAT (as SIGKILL), or an exception of that name is raised (as MemoryError, data:DataError). In the other
processes, and in what torchrun starts again, nothing happens.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from collections.abc import Sequence
from typing import Any


def find(module: str, path: Sequence[str]) -> Any:
    """Return what stands at these names in a module."""
    return functools.reduce(getattr, path, importlib.import_module(module))


def arm(place: str, number: int, what: str) -> None:
    """Replace a function by one that fails at its call of that number."""
    module, path = place.split(":")
    *outer, name = path.split(".")
    owner = find(module, outer)
    whole, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(whole)
    def failing(*arguments: Any, **options: Any) -> Any:
        call = next(calls)
        if call == number:
            fail(what)
        result = whole(*arguments, **options)
        if call == -number:
            fail(what)
        return result

    setattr(owner, name, failing)


def fail(what: str) -> None:
    if what.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[what])
    else:
        module, _, name = what.rpartition(":")
        raise find(module or "builtins", [name])(f"{what} on purpose")


rank, place, number, what = os.environ["FAULT"].split()
if rank == os.environ["RANK"] and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
    arm(place, int(number), what)
