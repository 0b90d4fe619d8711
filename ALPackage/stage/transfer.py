"""How a batch reaches the device, and the stream, of the worker that takes it.

On the CPU a reference is handed on. A worker on a GPU computes on a stream of its own and has slots of reused buffers,
which a second stream fills from other devices while the worker computes on another slot:

    before  ..x_t]--event--.                                     [1] the copy waits for the tensor's event
    copy stream             `[1][2] x_t -> slot t mod 2 ]-.      [2] into a slot that the worker is done with
    compute stream   [ F B of x_{t-1} ]                    `[3] F B of x_t ]--done    [3] waits for the copy

What is on the device already, perhaps computed by another worker's stream, is read where it is, after its event. The
host waits for `done` before it uses that slot again, so it is never more than two tasks ahead of the device, and what a
slot was filled from, or stands for, is kept alive until then. Nothing is freed that a stream may still read, so the
allocator needs no `record_stream` for what passes between layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..nested import tensors, to_device
from .batch import Batch, InPlaceGuard

#: One slot to compute on and one to fill.
SLOTS = 2


class WorkerInput:
    """The input side of a worker on the CPU: it takes tensors as they are, and fetches those that are on a GPU."""

    #: Whether the worker has a stream, and receiving a batch may copy it.
    copies = False
    #: The stream that the worker computes on, if it has one.
    stream: Any = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Enter the worker's CUDA stream (nothing on the CPU)."""
        yield

    def receive(self, batch: Batch) -> None:
        """Bring the tensors of `batch` to the worker's device."""
        if batch.events:
            for event in batch.events:
                event.synchronize()
            batch.events = []
            batch.map_inputs(lambda tree: to_device(tree, self.device))

    def order_after(self, event: Any) -> None:
        """Order what follows after `event`, which `record_done` has returned for the same layer; None for the first."""

    def record_output(self, batch: Batch) -> None:
        """Note on `batch` that its tensors have been produced."""

    def record_done(self, event: Any = None) -> Any:
        """Note that the worker is done with the batch that it received, and return the event of that.

        `event`: the one that this returned for the same layer before, to be used again.
        """

    def order_with_caller(self, *, entering: bool) -> None:
        """Order the worker's stream after the caller's (`entering`), or the caller's after the worker's."""


class CudaWorkerInput(WorkerInput):
    """The double-buffered input side of a worker on a GPU.

    `cuda`: the module that makes streams and events; tests give another.
    """

    copies = True

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        super().__init__(device)
        self.cuda = cuda
        self.stream = cuda.Stream(device)
        self._copy = cuda.Stream(device)
        self._slots = [_Slot(device, cuda) for _ in range(SLOTS)]
        self._current = 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Enter the worker's stream, and wait for it at the end."""
        with self.cuda.stream(self.stream):
            try:
                yield
            finally:
                # Whoever gets the slots' memory next, or reads the weights, must not find the stream still using them.
                self.stream.synchronize()
                for slot in self._slots:
                    slot.sources, slot.guard = [], None

    def receive(self, batch: Batch) -> None:
        """Fill the next slot with the tensors of `batch` that are elsewhere; the host waits until the slot is free."""
        self._current = (self._current + 1) % len(self._slots)
        slot = self._slots[self._current]
        slot.wait()  # [2] in the drawing
        # Here for changes that the host has seen, and in `_Slot.wait` for those that it makes while the copy runs.
        if batch.guard is not None:
            batch.guard.check()
        slot.sources, slot.guard = tensors(batch.inputs), batch.guard
        with self.cuda.stream(self._copy):
            for event in batch.events:
                self._copy.wait_event(event)  # [1]
            batch.map_inputs(slot.fill)
            slot.filled.record(self._copy)
        self.stream.wait_event(slot.filled)  # [3]; the host goes on at once

    def record_output(self, batch: Batch) -> None:
        """Record the event that a reader of the tensors waits for; copy out what still lies in the slot's memory."""
        slot = self._slots[self._current]
        batch.map_inputs(slot.copy_out)
        batch.map_results(slot.copy_out)
        # A new event per task: the slot's own would be recorded anew before a slow reader waits for it.
        event = self.cuda.Event()
        event.record(self.stream)
        batch.events = [event]

    def order_after(self, event: Any) -> None:
        """Have the worker's stream wait for `event`: another worker's stream may have changed the layer's weights."""
        if event is not None:
            self.stream.wait_event(event)

    def record_done(self, event: Any = None) -> Any:
        """Record that the worker is done with the slot, and with the layer, whose event it returns."""
        self._slots[self._current].done.record(self.stream)
        event = self.cuda.Event() if event is None else event
        event.record(self.stream)
        return event

    def order_with_caller(self, *, entering: bool) -> None:
        """Order the worker's stream after the caller's current one (`entering`), or the caller's after the worker's."""
        caller = self.cuda.current_stream(self.device)
        first, second = (caller, self.stream) if entering else (self.stream, caller)
        second.wait_stream(first)


class _Slot:
    """Buffers for the tensors of one batch; their memory is kept and grows with the largest batch."""

    def __init__(self, device: torch.device, cuda: Any) -> None:
        self.device = device
        self.filled = cuda.Event()
        self.done = cuda.Event()
        self.sources: list[Tensor] = []
        self.guard: InPlaceGuard | None = None
        self._flat: list[Tensor] = []
        self._pinned: list[Tensor] = []
        self._pin = device.type == "cuda"

    def wait(self) -> None:
        """Have the host wait until the worker is done with what was in the slot.

        Raises RuntimeError if the slot's sources were changed in place, possibly in the middle of the copy.
        """
        self.done.synchronize()
        if self.guard is not None:
            self.guard.check()

    def fill(self, tree: Any) -> Any:
        """Copy the tensors of `tree` that are not on the device into the slot; return the structure with the copies."""
        numbers = iter(range(len(self.sources)))
        return tree_map(lambda leaf: self._bring(next(numbers), leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def copy_out(self, tree: Any) -> Any:
        """Return `tree` with copies of the tensors that lie in the slot's memory, which the next batch overwrites."""
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and self._holds(leaf) else leaf, tree)

    def _holds(self, tensor: Tensor) -> bool:
        return any(_storage(tensor) == _storage(flat) for flat in self._flat)

    def _bring(self, number: int, source: Tensor) -> Tensor:
        if source.device == self.device:
            return source
        if self._pin and source.device.type == "cpu" and not source.is_pinned():
            # From pageable memory the host would wait for the copy; the staging buffer is pinned once.
            staging = _room(self._pinned, number, source, torch.device("cpu"), pin=True)
            staging.copy_(source)
            source = staging
        target = _room(self._flat, number, source, self.device)
        return target.copy_(source, non_blocking=True)


def _room(flats: list[Tensor], number: int, like: Tensor, device: torch.device, pin: bool = False) -> Tensor:
    """Return a tensor of the shape, dtype and memory format of `like` in flat buffer `number`, which may grow."""
    while number >= len(flats):  # sources that need no staging leave gaps
        flats.append(torch.empty(0))
    size = like.numel()
    if flats[number].numel() < size or flats[number].dtype != like.dtype:
        flats[number] = torch.empty(size, dtype=like.dtype, device=device, pin_memory=pin)
    strides = torch.empty_like(like, device="meta").stride()
    # A new tensor on the same memory, not a view: its version counts the changes to this batch and no other's.
    return torch.empty(0, dtype=like.dtype, device=device).set_(flats[number].untyped_storage(), 0, like.shape, strides)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def input_for(device: torch.device) -> WorkerInput:
    """Return the input side of a worker on `device`."""
    return CudaWorkerInput(device) if device.type == "cuda" else WorkerInput(device)


def order_streams(inputs: Sequence[WorkerInput], *, entering: bool) -> None:
    """Order every worker's stream after the caller's (`entering`: before a run), or the caller's after theirs."""
    for one in inputs:
        one.order_with_caller(entering=entering)


def entry_events(tree: Any, cuda: Any = torch.cuda) -> list[Any]:
    """Return the events after which the caller's GPU tensors are there: one per GPU that holds some of them."""
    devices = [tensor.device for tensor in tensors(tree) if tensor.is_cuda]
    # Almost every batch is on one GPU, but x and y may come from a loader that uses two.
    return [cuda.current_stream(device).record_event() for device in dict.fromkeys(devices)]


def sync_with_caller(batch: Batch, cuda: Any = torch.cuda) -> None:
    """Order the caller's streams after the last layer, and record the results, which the caller gets, on them."""
    streams: dict[torch.device, Any] = {}
    for tensor in tensors(batch.results):
        if not tensor.is_cuda:
            continue
        if (stream := streams.get(tensor.device)) is None:
            stream = streams[tensor.device] = cuda.current_stream(tensor.device)
            for event in batch.events:
                stream.wait_event(event)
        # Small tensors that go to the caller for good: no worker could keep them alive long enough.
        tensor.record_stream(stream)
