"""How many intra-op threads a worker gets."""

from __future__ import annotations

import os

from ALPackage.stage.threads import available_cores, process_threads, worker_threads

from ..config.load import device_list, layer_count
from ..config.schema import CommonConfig, Method
from ..errors import ConfigError


def count_threads(config: CommonConfig, model: str, method: Method) -> int:
    """Return the intra-op threads of a worker of a local method, or of BP: OMP_NUM_THREADS overrides everything.

    A worker takes `threads`, else an equal share of the cores; BP takes all cores. The number depends on no timing, no
    schedule and no partition, because it may change the last bit of a sum. Raises `ConfigError` where OMP_NUM_THREADS
    is no number of threads.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = asked.split(",")[0].strip()
    if asked and (not first.isdecimal() or int(first) < 1):
        raise ConfigError(f'OMP_NUM_THREADS: got "{asked}"; expected a number of at least 1, or leave it unset')
    if method == "bp":
        return process_threads()
    if asked or config.threads is None:
        return worker_threads()
    return config.threads


def _worker_count(config: CommonConfig, model: str, method: Method) -> int:
    """Return how many CPU workers there are at most: as `workers` says, the list's distinct ones, or one per core."""
    devices = device_list(config, model, method)
    if devices == "auto":
        return config.workers or min(available_cores(), layer_count(model, method, config))
    return sum(name == "cpu" for name in devices) + len({name for name in devices if name.startswith("cpu:")}) or 1
