"""The bytes that autograd holds: what forward passes have saved for backward passes that are still to come."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

Storage = tuple[str, int]


class _Saved:
    """A tensor that autograd has saved; it is gone when autograd drops this."""

    def __init__(self, tensor: Tensor, held: Held) -> None:
        self.tensor, self._held = tensor, held
        self._storage = held.add(tensor)

    def __del__(self) -> None:
        self._held.drop(self._storage)


class Held:
    """Counts the storages behind saved tensors, each once, as long as anything that was saved lies in it.

    Weights and buffers do not count: they would be there anyway. The hooks of `saved_tensors_hooks` belong to a thread,
    so every thread that runs a forward pass enters `count`, or calls a module that is `watch`ed; the sums are for all
    threads together. Activation checkpointing has hooks of its own; what it computes again is counted by `again`.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {_storage(weight) for weight in weights}
        self._bytes: dict[Storage, int] = {}
        self._saved: dict[Storage, int] = {}
        self._lock = threading.RLock()  # a collection of garbage may come while this thread has it
        self._of_thread = threading.local()
        self.now = 0
        self.peak = 0

    def add(self, tensor: Tensor) -> Storage | None:
        """Count a tensor that is saved; returns what to `drop` when it no longer is."""
        storage = _storage(tensor)
        if storage in self._weights:
            return None
        with self._lock:
            self._saved[storage] = self._saved.get(storage, 0) + 1
            if self._saved[storage] == 1:
                self._bytes[storage] = tensor.untyped_storage().nbytes()
                self.now += self._bytes[storage]
                self.peak = max(self.peak, self.now)
        return storage

    def drop(self, storage: Storage | None) -> None:
        """Forget a saved tensor."""
        if storage is None:
            return
        with self._lock:
            self._saved[storage] -= 1
            if not self._saved[storage]:
                del self._saved[storage]
                self.now -= self._bytes.pop(storage)

    def count(self) -> AbstractContextManager[Any]:
        """Return a context in which this thread's saved tensors are counted until autograd drops them."""
        # Detached: an operation's saved output would hold the operation, which holds what it saved.
        return saved_tensors_hooks(lambda tensor: _Saved(tensor.detach(), self), lambda saved: saved.tensor)

    def watch(self, module: nn.Module) -> None:
        """Count what the module's forward passes save, on whichever thread they run."""

        def enter(*_: Any) -> None:
            self._of_thread.context = self.count()
            self._of_thread.context.__enter__()

        def leave(*_: Any) -> None:
            self._of_thread.context.__exit__(None, None, None)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)

    def contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return the contexts for `context_fn` of `torch.utils.checkpoint`: of the first pass and of the second."""
        return nullcontext(), self._again()

    @contextmanager
    def _again(self) -> Iterator[None]:
        """Count what a second forward pass saves, until its end: then all of it is there, and used up one by one."""
        # The hooks of the checkpoint, which must go on getting every tensor. torch has no public way to chain hooks.
        below = torch._C._autograd._top_saved_tensors_default_hooks(False)
        storages = []

        def pack(tensor: Tensor) -> Any:
            storages.append(self.add(tensor))
            return below[0](tensor)  # ends the pass by an exception when everything is there

        try:
            with saved_tensors_hooks(pack, below[1]):
                yield
        finally:
            for storage in storages:
                self.drop(storage)


def _storage(tensor: Tensor) -> Storage:
    return str(tensor.device), tensor.untyped_storage().data_ptr()
