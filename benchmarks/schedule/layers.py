"""Layers that take a known time, or none: the schedules themselves are what remains to be measured."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, LocalLayer

#: Share of a layer's time that its forward pass takes.
FORWARD = 0.4
#: How the times are spread around their mean.
BALANCE = ("balanced", "ramp", "one slow")


def layer_times(layers: int, mean: float, balance: str) -> list[float]:
    """Return the seconds of each layer: all equal, rising from half to one and a half, or the middle one double."""
    if balance == "balanced":
        return [mean] * layers
    if balance == "ramp":
        return [mean * (0.5 + layer / (layers - 1)) for layer in range(layers)]
    return [2 * mean if layer == layers // 2 else mean for layer in range(layers)]


class _Simulated(AL):
    """A layer that computes nothing and hands on what it gets."""

    def __init__(self) -> None:
        super().__init__(ENC(nn.Linear(1, 1), nn.Identity()), AE(nn.Identity(), nn.Identity()))
        self.requires_grad_(False)  # nothing trains
        self._losses = {"assoc": torch.zeros(()), "ae": torch.zeros(())}

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the inputs."""
        return x, y

    def hidden(self, x: Any) -> Any:
        """Return the input, as `forward` does."""
        return x

    def losses(self) -> dict[str, Tensor]:
        """Return the same losses every time."""
        return self._losses

    def backward_and_update(self) -> None:
        """Do nothing."""


class _Sleeper(_Simulated):
    """A layer that sleeps, which releases the interpreter lock as an operator of torch does."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Sleep the forward share of the time."""
        time.sleep(self._seconds * FORWARD)
        return x, y

    def backward_and_update(self) -> None:
        """Sleep the rest of the time."""
        time.sleep(self._seconds * (1 - FORWARD))


def sleeping_stack(times: list[float]) -> ALStack:
    """Return a stack whose layers take the given seconds per batch."""
    return ALStack(_Sleeper(seconds) for seconds in times)


def empty_stack(layers: int) -> ALStack:
    """Return a stack of layers that take no time."""
    return ALStack(_Simulated() for _ in range(layers))


class _SleepingStep(torch.autograd.Function):
    """A loss whose backward pass sleeps."""

    @staticmethod
    def forward(context: Any, weight: Tensor, seconds: float) -> Tensor:
        """Return a loss that does not depend on anything."""
        context.seconds = seconds
        return torch.zeros(())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Sleep, and leave the weight as it is."""
        time.sleep(context.seconds)
        return torch.zeros(1), None


class RowSleeper(LocalLayer):
    """A layer that sleeps for every row of a batch, forward and backward, so that replicas of it each sleep less.

    `seconds`: of a batch of `rows` rows.
    """

    row_separable = True

    def __init__(self, seconds: float, rows: int) -> None:
        super().__init__()
        self._per_row = seconds / rows
        self.weight = nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.0)

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Sleep the forward share of the time."""
        seconds = self._per_row * len(x)
        time.sleep(seconds * FORWARD)
        return x, y, {"loss": _SleepingStep.apply(self.weight, seconds * (1 - FORWARD))}  # type: ignore[no-untyped-call]

    def hidden(self, x: Any) -> Any:
        """Return the input, as `compute` does."""
        return x

    def readout(self, hidden: Any) -> Any:
        """Return the input, as `compute` does."""
        return hidden
