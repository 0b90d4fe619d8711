"""What of the thread that calls a schedule also holds where layers work on threads of their own, and what cannot.

Much of Python's and torch's state belongs to one thread. Without this a layer would compute something else under a
schedule with threads than under the sequential one. (Grad mode and the current device are set for every step; autocast
is in `threads`.)
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._device import DeviceContext


class CallerState:
    """The state of the thread that makes this object: context variables and what of torch's the fields below name.

    `empty`: nothing of it, as on a new thread.
    """

    def __init__(self, *, empty: bool = False) -> None:
        self._context = contextvars.Context()
        self._device: torch.device | None = None
        self._hooks: Any = None
        self._flushes = False
        if empty:
            return
        self._context = contextvars.copy_context()
        if (device := torch.get_default_device()).type != "cpu":
            self._device = device
        # Where torch does not tell, hooks act on the caller's thread alone.
        top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)
        self._hooks = top(False)
        # torch can set this for a thread (`torch.set_flush_denormal`) but does not tell it.
        self._flushes = not torch.tensor(1e-39, dtype=torch.float32, device="cpu").mul(1.0).item()

    def worker(self) -> Callable[..., Any]:
        """Return a function that one thread calls, with a function and its arguments, to call it in this state."""
        context = self._context.copy()  # a context can be entered by one thread at a time
        run: Callable[..., Any] = context.run if self._device is None and self._hooks is None else self._run_in(context)
        fresh = True

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal fresh
            if fresh:
                fresh = False
                torch.set_flush_denormal(self._flushes)
            return run(function, *arguments)

        return call

    def _run_in(self, context: contextvars.Context) -> Callable[..., Any]:
        def run(function: Callable[..., Any], *arguments: Any) -> Any:
            with self._entered():
                return context.run(function, *arguments)

        return run

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

    active = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]  # type: ignore[no-untyped-call]
    return [type(mode).__name__.lstrip("_") for mode in active if not isinstance(mode, DeviceContext)]
