"""The floating-point operations of a training step, counted as torch carries it out, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(step: Callable[[], object]) -> int:
    """Return the operations of matrix products, convolutions, attention and LSTMs in what `step` does on this thread.

    A multiplication and an addition count as two. Everything else, such as normalizations, is left out. Attention is
    computed part by part meanwhile, as torch's counter does not know the fused one of a CPU.
    """
    aten = torch.ops.aten
    custom = {aten.mkldnn_rnn_layer: _recurrent, aten.mkldnn_rnn_layer_backward: _recurrent_backward}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=custom) as counter:
        step()
    return counter.get_total_flops()


def _recurrent(x: tuple[int, ...], to_gates: tuple[int, ...], again: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Return the products of an LSTM's layer: two per weight, position and sample."""
    positions, samples, _width = x
    return 2 * positions * samples * (to_gates[0] * to_gates[1] + again[0] * again[1])


def _recurrent_backward(*shapes: Any, **options: Any) -> int:
    """Return twice those of the forward pass: the gradients of the weights, and of what they were multiplied with."""
    return 2 * _recurrent(*shapes, **options)
