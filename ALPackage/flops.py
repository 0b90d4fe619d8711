"""Floating-point operations of a forward pass, counted with what torch's counter does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

from .nested import tensors


@contextmanager
def counting(module: nn.Module) -> Iterator[Callable[[], int]]:
    """Count what the module and others do inside the block; yield what returns the operations so far.

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
        for one in module.modules():
            if isinstance(one, nn.RNNBase):
                undo.callback(one.register_forward_pre_hook(enter).remove)
                undo.callback(one.register_forward_hook(leave).remove)
        yield lambda: counter.get_total_flops() + recurrent


def _recurrent(module: nn.Module, x: Any) -> int:
    """Return the operations of a recurrent module: two per weight and position."""
    features = x.data if isinstance(x, PackedSequence) else tensors(x)[0]
    positions = features.numel() // features.shape[-1]
    return 2 * positions * sum(parameter.numel() for parameter in module.parameters())
