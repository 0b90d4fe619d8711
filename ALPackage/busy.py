"""Which modules are in the hands of other threads at present.

While a run of the continuous schedule is open, its layers train on threads of their own. What reads their weights or
changes their mode from the loop over `run` would get, or leave, a mixture that depends on timing, without any error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

#: By open run. Held weakly, and outside of the modules: a copy of a busy module is not busy.
_BUSY: dict[object, WeakSet[Any]] = {}


@contextmanager
def busy(modules: Iterable[Any]) -> Iterator[None]:
    """Mark modules as busy within the `with` block."""
    run = object()
    try:
        # One store and one removal, which Ctrl-C cannot split: a module that stayed marked could not be used any more.
        _BUSY[run] = WeakSet(modules)
        yield
    finally:
        _BUSY.pop(run, None)


def refuse_if_busy(module: object, call: str) -> None:
    """Raise RuntimeError if a run is open in which other threads train the module, unless this is one of them."""
    marked = _BUSY and any(module in modules for modules in list(_BUSY.values()))
    if marked and not getattr(threading.current_thread(), "trains_layers", False):
        raise RuntimeError(
            f"{call}: a run of the continuous schedule is open, and other threads train these layers meanwhile; finish "
            "the loop over run (or close its iterator) first, put a Snapshot among the batches to take the state, or "
            'use schedule="sequential"'
        )
