"""A plug-in that makes one process of a command fail: FAULT="RANK MODULE:FUNCTION CALL WHAT" in the environment.

Before that call of the function, counted from 1, or after it if the number is negative, the process of that rank gets
the signal WHAT (as SIGKILL), or an exception of that name is raised (as MemoryError, data:DataError). In the other
processes, and in what torchrun starts again, nothing happens. The file FAULT_NOTE, if one is named, gets the moment.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["MOMENTS", "moment_in"]

#: By moment of a run of a few epochs: where rank 0 is then, and where the others.
MOMENTS = {
    "before": ("training.experiment:load_task 1", "training.runs.follow:_follow 1"),
    # Rank 0 has trained all layers to measure what they cost.
    "during": ("ALPackage.layer:LocalLayer.update 96", "ALPackage.layer:LocalLayer.update 30"),
    "evaluation": ("ALPackage.stage.runner:LayerRunner.infer 2", "ALPackage.base:AL.hidden 6"),
    "after": ("training.report.gallery:Gallery.draw 1", "ALPackage.schedules.distributed:Distributed.serve -2"),
}


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
    if "FAULT_NOTE" in os.environ:
        Path(os.environ["FAULT_NOTE"]).write_text(str(time.monotonic()))
    if what.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[what])
    else:
        module, _, name = what.rpartition(":")
        raise find(module or "builtins", [name])(f"{what} on purpose")


def moment_in(note: Path) -> float | None:
    """Return when the fault was, by this machine's monotonic clock; None as long as it has not been."""
    text = note.read_text() if note.exists() else ""
    return float(text) if text else None


if "FAULT" in os.environ:
    rank, place, number, what = os.environ["FAULT"].split()
    if rank == os.environ["RANK"] and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        arm(place, int(number), what)
