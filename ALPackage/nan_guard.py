"""Keep a step whose loss is no finite number from changing anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Guard:
    """Takes a layer's optimizer steps for it, and leaves out those whose loss is NaN or infinite.

    Weights, moments, step counts and buffers (such as the running statistics of batch normalization) are then as if
    the batch had not been there. Where the optimizer has a fused form on a GPU the host does not wait to know: the
    step is asked for, and does nothing. With another optimizer it waits.
    """

    def __init__(self) -> None:
        self._saved: list[tuple[Tensor, Tensor]] = []

    def save_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Note the buffers as they are before the forward pass."""
        self._saved = [(buffer, buffer.detach().clone()) for buffer in buffers]

    @torch.no_grad()
    def step(self, optimizer: Optimizer, loss: Tensor) -> None:
        """Take the optimizer's step, or none. `loss`: 0-d, of the batch that the gradients are of."""
        finite = torch.isfinite(loss.detach())
        saved, self._saved = self._saved, []
        if loss.is_cuda and all(group.get("fused") for group in optimizer.param_groups):
            told: Any = optimizer  # what `torch.amp.GradScaler` does too: the fused kernel asks for it
            told.found_inf = (~finite).float()
            try:
                optimizer.step()
            finally:
                del told.found_inf
            for buffer, before in saved:
                buffer.copy_(torch.where(finite.to(buffer.device), buffer, before))
        elif bool(finite):
            optimizer.step()
        else:
            for buffer, before in saved:
                buffer.copy_(before)

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        """A copy has noted nothing: what is noted belongs to a step of the original."""
        return Guard()
