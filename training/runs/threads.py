"""How many intra-op threads a worker gets."""

from __future__ import annotations

import os

from ALPackage.devices import own_cores
from ALPackage.stage.threads import asked_threads, process_threads

from ..config.schema import CommonConfig, Method
from ..errors import ConfigError


def count_threads(config: CommonConfig, method: Method, *, alone: bool = True) -> int:
    """Return the intra-op threads of a worker of a local method, or of BP: OMP_NUM_THREADS overrides everything.

    A worker takes `threads`, else 1; BP takes all cores, or, where it is not `alone` but one of several processes that
    train together, this process's share. The number depends on no timing, no schedule, no placement and
    no number of workers, because it may change the last bit of a sum. Raises `ConfigError` where OMP_NUM_THREADS is no
    number of threads.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = asked.split(",")[0].strip()
    if asked and (not first.isdecimal() or int(first) < 1):
        raise ConfigError(f'OMP_NUM_THREADS: got "{asked}"; expected a number of at least 1, or leave it unset')
    if method == "bp":
        return process_threads() if alone else asked_threads() or own_cores()
    return asked_threads() or config.threads or 1
