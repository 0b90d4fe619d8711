"""Keep a step whose loss is not finite from changing anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Guard:
    """Takes a layer's optimizer steps and skips those whose loss is NaN or infinite.

    After a skipped step weights, moments, step counts and buffers (such as the running statistics of batch
    normalization) are as if the batch had not been there. On a GPU with a fused optimizer the kernel itself decides
    and the host never waits; with any other optimizer the host waits for the loss at every step, and is warned once.

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        >>> layer.guard = Guard()
        >>> before = layer.enc.f.weight.clone()
        >>> _ = layer(torch.full((5, 4), float("nan")), torch.randn(5, 3))
        >>> layer.backward_and_update()
        >>> torch.equal(layer.enc.f.weight, before)
        True
    """

    def __init__(self) -> None:
        self._saved: list[tuple[Tensor, Tensor]] = []
        self._warned = False

    def save_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Remember the buffers as they are before the forward pass."""
        self._saved = [(buffer, buffer.detach().clone()) for buffer in buffers]

    @torch.no_grad()
    def step(self, optimizer: Optimizer, loss: Tensor) -> None:
        """Take the optimizer's step, or skip it. `loss`: 0-d, of the batch that the gradients belong to."""
        finite = torch.isfinite(loss.detach())
        saved, self._saved = self._saved, []
        if loss.is_cuda and all(group.get("fused") for group in optimizer.param_groups):
            # The fused kernel skips the step where `found_inf` is 1; `torch.amp.GradScaler` uses the same attribute.
            fused: Any = optimizer
            fused.found_inf = (~finite).float()
            try:
                optimizer.step()
            finally:
                del fused.found_inf
            for buffer, before in saved:
                buffer.copy_(torch.where(finite.to(buffer.device), buffer, before))
            return
        if loss.is_cuda and not self._warned:
            self._warned = True
            warnings.warn(
                f"Guard: {type(optimizer).__name__} is not fused, so the host waits for the GPU at every step of the "
                "layer; give the optimizer fused=True, or train without a guard",
                stacklevel=2,
            )
        if bool(finite):
            optimizer.step()
        else:
            for buffer, before in saved:
                buffer.copy_(before)

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        """Return a guard that has saved nothing: what is saved belongs to a step of the original."""
        copied = Guard()
        copied._warned = self._warned
        return copied
