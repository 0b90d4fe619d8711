"""The peak memory of a turn, training and measuring together, and whether an error means that there was too little.

On CUDA it is what PyTorch's allocator handed out, added up over the devices. On the CPU it is the largest resident size
of the process inside the block. Linux can reset the peak; other systems only know the peak since the process started,
and `exact` is then False.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import torch

MB = 1e6
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an operation failed because it did not get the memory that it asked for."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's words, on the CPU


class PeakMemory:
    """Measure the peak memory inside a `with` block, in MB (10**6 bytes), of these devices.

    With a CUDA device among them the figure is that of the CUDA devices alone. `mb` can be read inside the block
    and after it; it is None where the system does not say. Reading it on CUDA does not wait for the device.
    """

    def __init__(self, devices: Iterable[torch.device | str] = ("cpu",)) -> None:
        named = dict.fromkeys(torch.device(device) for device in devices)
        self.cuda = [device for device in named if device.type == "cuda"]
        self.exact = True
        self._final: float | None = None
        self._open = False

    def __enter__(self) -> PeakMemory:
        gc.collect()  # what an earlier turn left must not count as this one's
        self._open = True
        for device in self.cuda:
            torch.cuda.reset_peak_memory_stats(device)
        if not self.cuda:
            _return_free_memory()
            self.exact = _reset_peak()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._final = self._measure()
        self._open = False

    @property
    def mb(self) -> float | None:
        """The peak so far, or that of the whole block once it has ended."""
        return self._measure() if self._open else self._final

    def _measure(self) -> float | None:
        if self.cuda:
            return sum(torch.cuda.max_memory_allocated(device) for device in self.cuda) / MB
        return _process_peak()


def _return_free_memory() -> None:
    """Make the C library return freed memory to the system, or it would count as resident."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(0)


def _reset_peak() -> bool:
    """Reset the process's peak to its present size; return whether the system allowed it."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _process_peak() -> float | None:
    """Return the peak resident size in MB: since the last reset on Linux, else since the start."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MB
    except OSError:
        pass  # not Linux: ask the portable way
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB
