"""A process that keeps one core busy half of the time: `python -m benchmarks.disturbed.neighbor <core>`.

It computes for PERIOD * SHARE seconds of its own CPU time, then sleeps until the next period begins. Where it must
wait for the core it computes later, so it gets its share as long as the core has that much to give. It ends on SIGTERM,
with a line that says which share of the core it had, and when the process that started it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn

#: Shorter than nearly every step of a layer, so that the core is one of half the speed to them; longer than the slices
#: of the scheduler.
PERIOD, SHARE = 0.02, 0.5


def main() -> NoReturn:
    """Compute and sleep in turns until told to end."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    signal.signal(signal.SIGTERM, _end)
    start = time.perf_counter()
    global _start
    _start = start, time.process_time()
    print("ready", flush=True)
    period, parent = 0, os.getppid()
    while os.getppid() == parent:
        until = time.process_time() + PERIOD * SHARE
        while time.process_time() < until:
            pass
        # A period that was missed is gone: it does not make up for it.
        period = max(period + 1, int((time.perf_counter() - start) / PERIOD))
        time.sleep(max(0.0, start + period * PERIOD - time.perf_counter()))
    os._exit(1)


_start = 0.0, 0.0


def _end(*_: Any) -> NoReturn:
    began, used = _start
    print((time.process_time() - used) / (time.perf_counter() - began), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
