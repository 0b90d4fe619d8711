"""What of the thread that calls a schedule also holds where layers work on threads of their own, and what cannot.

Much of Python's and torch's state belongs to one thread. Without this a layer would compute something else under a
schedule with threads than under the sequential one. (Grad mode and the current device are set for every step; autocast
is in `threads`.)
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch.utils._device import DeviceContext

T = TypeVar("T")


class CallerState:
    """The default device, the hooks for saved tensors and the context variables of the thread that makes this object.

    `empty`: nothing of them, as on a new thread.
    """

    def __init__(self, *, empty: bool = False) -> None:
        self._context = contextvars.Context()
        self._device: torch.device | None = None
        self._hooks: Any = None
        if empty:
            return
        self._context = contextvars.copy_context()
        if (device := torch.get_default_device()).type != "cpu":
            self._device = device
        # Where torch does not tell, hooks act on the caller's thread alone.
        top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)
        self._hooks = top(False)

    def worker(self) -> Callable[..., Any]:
        """Return a function that one thread calls, with a function and its arguments, to call it in this state."""
        context = self._context.copy()  # a context can be entered by one thread at a time
        if self._device is None and self._hooks is None:
            return context.run

        def call(function: Callable[..., T], *arguments: Any) -> T:
            with self._entered():
                return context.run(function, *arguments)

        return call

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with ExitStack() as states:
            states.enter_context(nullcontext() if self._device is None else self._device)
            if self._hooks is not None:
                states.enter_context(torch.autograd.graph.saved_tensors_hooks(*self._hooks))
            yield


def modes() -> list[str]:
    """Return the names of what watches or replaces every operation of the calling thread, such as a FLOP counter.

    These modes are not made for several threads at once, so they cannot be carried over.
    """
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    active = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    return [type(mode).__name__.lstrip("_") for mode in active if not isinstance(mode, DeviceContext)]
