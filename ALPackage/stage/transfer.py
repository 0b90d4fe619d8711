"""How a batch crosses from one stage's device to the next.

On the CPU a reference is handed on. A stage on a GPU computes on a stream of its own and has slots of reused buffers,
which a second stream fills while the stage computes on another slot:

    before  ..x_t]--event--.                                     [1] the copy waits for the tensor's event
    copy stream             `[1][2] x_t -> slot t mod 2 ]-.      [2] into a slot that the stage has done with
    compute stream   [ F B of x_{t-1} ]                    `[3] F B of x_t ]--done    [3] waits for the copy

The host waits for `done` before it fills that slot again, so it is never more than two batches ahead of the device,
and whatever a slot was filled from is kept alive until then. Nothing is freed that a stream may still read, so
the allocator needs no `record_stream` for what passes between stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..nested import tensors, to_device
from .batch import Batch, Seal

#: One slot to compute on and one to fill.
SLOTS = 2


class Intake:
    """The intake of a stage on the CPU: it takes tensors as they are, and fetches those that are on a GPU."""

    #: Whether receiving a batch copies it.
    copies = False
    #: The stream that the stage computes on, if it has one.
    stream: Any = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Be in the state in which the stage computes."""
        yield

    def receive(self, batch: Batch) -> None:
        """Bring the tensors of `batch` to the stage's device."""
        if batch.event is not None:
            batch.event.synchronize()
            batch.event = None
            batch.verify()
            batch.x, batch.y = to_device((batch.x, batch.y), self.device)
            batch.sealed = None  # these are copies

    def mark(self, batch: Batch) -> None:
        """Note on `batch` that the stage has produced its tensors."""

    def release(self) -> None:
        """Note that the stage has done with the batch that it received."""

    def join(self, entering: bool) -> None:
        """Order the stage's stream after the caller's (`entering`), or the caller's after the stage's."""


class Ring(Intake):
    """The intake of a stage on a GPU. `cuda`: the module that makes streams and events; tests give another."""

    copies = True

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        super().__init__(device)
        self.cuda = cuda
        self.stream = cuda.Stream(device)
        self._copy = cuda.Stream(device)
        self._slots = [_Slot(device, cuda) for _ in range(SLOTS)]
        self._turn = 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Be on the stage's stream."""
        with self.cuda.stream(self.stream):
            try:
                yield
            finally:
                # Who gets the memory of the slots next, or reads the weights, must not find the stream at work on them.
                self.stream.synchronize()
                for slot in self._slots:
                    slot.sources, slot.sealed = [], None

    def receive(self, batch: Batch) -> None:
        """Fill the next slot with the tensors of `batch`; the host waits until the stage has done with the slot."""
        self._turn = (self._turn + 1) % len(self._slots)
        slot = self._slots[self._turn]
        slot.wait()
        batch.verify()
        slot.sources, slot.sealed, batch.sealed = tensors((batch.x, batch.y)), batch.sealed, None
        with self.cuda.stream(self._copy):
            if batch.event is not None:
                self._copy.wait_event(batch.event)
            batch.x, batch.y = slot.fill((batch.x, batch.y))
            slot.filled.record(self._copy)
        self.stream.wait_event(slot.filled)

    def mark(self, batch: Batch) -> None:
        """Record the event that a reader of the tensors waits for; what is still the slot's memory is copied out."""
        slot = self._slots[self._turn]
        outputs = batch.x, batch.y, batch.codes, batch.losses
        batch.x, batch.y, batch.codes, batch.losses = tree_map(slot.out, outputs)
        batch.event = self.cuda.Event()
        batch.event.record(self.stream)

    def release(self) -> None:
        """Record that the stage has done with the slot."""
        self._slots[self._turn].done.record(self.stream)

    def join(self, entering: bool) -> None:
        """Order the stage's stream after the caller's current one, or the other way round."""
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
        self.sealed: Seal | None = None
        self._flat: list[Tensor] = []
        self._pinned: list[Tensor] = []
        self._pin = device.type == "cuda"

    def wait(self) -> None:
        """Have the host wait until the stage has done with what was in the slot.

        Raises RuntimeError if its sources have been changed in place, which the copy may have met half-way.
        """
        self.done.synchronize()
        if self.sealed is not None:
            self.sealed.verify()

    def fill(self, tree: Any) -> Any:
        """Copy the tensors of `tree` into the slot and return the same structure of the copies."""
        places = iter(range(len(self.sources)))
        return tree_map(lambda leaf: self._place(next(places), leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def out(self, leaf: Any) -> Any:
        """Return a copy of a tensor that lies in the slot's memory, as the slot is filled anew; others as they are."""
        if isinstance(leaf, Tensor) and any(_storage(leaf) == _storage(flat) for flat in self._flat):
            return leaf.clone()
        return leaf

    def _place(self, number: int, source: Tensor) -> Tensor:
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


def intake_for(device: torch.device) -> Intake:
    """Return the intake of a stage on `device`."""
    return Ring(device) if device.type == "cuda" else Intake(device)


def join_streams(intakes: Sequence[Intake], *, entering: bool) -> None:
    """Order every stage's stream after the caller's (`entering`: before a run), or the caller's after theirs."""
    for intake in intakes:
        intake.join(entering)


def entry_event(tree: Any) -> Any:
    """Return the event after which the caller's GPU tensors are there; None where all are on the CPU."""
    on_gpu = next((tensor for tensor in tensors(tree) if tensor.is_cuda), None)
    return None if on_gpu is None else torch.cuda.current_stream(on_gpu.device).record_event()


def lend(batch: Batch) -> Batch:
    """Make the losses and codes of `batch` safe to use on the caller's current streams."""
    for tensor in tensors((batch.losses, batch.codes)):
        if tensor.is_cuda:
            stream = torch.cuda.current_stream(tensor.device)
            if batch.event is not None:
                stream.wait_event(batch.event)
            # Small tensors that go to the caller for good: no stage could keep them alive long enough.
            tensor.record_stream(stream)
    return batch
