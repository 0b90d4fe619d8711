"""What inference costs at every depth, in floating-point operations: counted, never timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

from ..nested import tensors
from ..stack import ALStack


@dataclass(frozen=True)
class Work:
    """Floating-point operations per sample, by depth.

    Attributes:
        hidden: Of each layer's `hidden`.
        reading: Of the prediction at each depth: the layer's `readout`, and `decode` of it and all layers before.
    """

    hidden: Sequence[float]
    reading: Sequence[float]

    @property
    def full(self) -> float:
        """Those of all layers, with the last prediction alone."""
        return sum(self.hidden) + self.reading[-1]

    def at(self, depth: int) -> float:
        """Return those of the first `depth` layers, with the last prediction alone, as a share of `full`."""
        return (sum(self.hidden[:depth]) + self.reading[depth - 1]) / self.full


@torch.no_grad()
def count_work(stack: ALStack, x: Any) -> Work:
    """Return the mean work per sample of an input x of the stack. Raises ValueError where nothing can be counted."""
    rows = stack[0].rows(x)
    hidden: list[float] = []
    reading: list[float] = []
    layers = list(stack)
    with _counting(stack) as operations:
        for depth, layer in enumerate(layers, start=1):
            before = operations()
            x = layer.hidden(x)
            hidden.append((operations() - before) / rows)
            before = operations()
            code = layer.readout(x)
            for one in reversed(layers[:depth]):
                code = one.decode(code)
            reading.append((operations() - before) / rows)
    work = Work(hidden, reading)
    if not work.full > 0:
        raise ValueError(
            "early exit: no floating-point operations can be counted in these layers (torch's FlopCounterMode knows "
            "matrix products and convolutions), so there is no work to save; give thresholds yourself"
        )
    return work


@contextmanager
def _counting(stack: nn.Module) -> Iterator[Callable[[], int]]:
    """Count the operations inside the block; yield what returns those so far.

    torch's counter does not know recurrent modules, compiled ones, and fused attention on a CPU: the first are counted
    here, and of the others the parts are computed one by one.
    """
    recurrent = 0
    entered: dict[nn.Module, int] = {}

    def enter(module: nn.Module, _: Any) -> None:
        entered[module] = counter.get_total_flops()

    def leave(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        nonlocal recurrent
        known = counter.get_total_flops() - entered.pop(module)  # some devices' kernels are made of known ones
        recurrent += _recurrent(module, inputs[0]) - known

    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as undo:
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        undo.enter_context(sdpa_kernel(SDPBackend.MATH))
        if hasattr(torch.compiler, "set_stance"):  # from torch 2.6
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        counter = undo.enter_context(FlopCounterMode(display=False))
        for module in stack.modules():
            if isinstance(module, nn.RNNBase):
                undo.callback(module.register_forward_pre_hook(enter).remove)
                undo.callback(module.register_forward_hook(leave).remove)
        yield lambda: counter.get_total_flops() + recurrent


def _recurrent(module: nn.Module, x: Any) -> int:
    """Return the operations of a recurrent module: two per weight and position."""
    features = x.data if isinstance(x, PackedSequence) else tensors(x)[0]
    positions = features.numel() // features.shape[-1]
    return 2 * positions * sum(parameter.numel() for parameter in module.parameters())
