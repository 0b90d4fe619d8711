"""Train and measure one model: the same calls for AL, under any schedule, and for BP."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ALPackage.stage.trace import Usage

from ..errors import NumbersError
from .means import LossWatch, Mark, RunningMeans, State, all_finite

Progress = Callable[[dict[str, Tensor]], None]
Batches = Iterable[tuple[Any, Tensor] | Mark]


def cosine_lr(base: float, end: float, steps: int, warmup: float = 0.0) -> Callable[[int], float]:
    """Return the learning rate as a function of the step: half a cosine from `base` to `end` at `steps`.

    Before it, the rate rises in a straight line to `base` within the first `warmup` of the steps, a share in [0, 1).
    """
    rising = round(warmup * steps)

    def lr(step: int) -> float:
        if step < rising:
            return base * (step + 1) / (rising + 1)
        done = (min(step, steps) - rising) / max(1, steps - rising)
        return end + (base - end) * 0.5 * (1.0 + math.cos(math.pi * done))

    return lr


def load_moments(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load the moments of `saved`, a state dict; options such as `fused` belong to the device and stay as they are."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": saved["state"]})


@contextmanager
def mixed_precision(devices: Iterable[torch.device], precision: str) -> Iterator[None]:
    """Compute in bfloat16 where that is safe if `precision` is "bf16"; weights and losses stay in float32.

    The cache of cast weights stays off: in a block that lasts an epoch it would outlive every update.
    """
    with ExitStack() as stack:
        for kind in {device.type for device in devices} if precision == "bf16" else ():
            stack.enter_context(torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False))
        yield


class Trainer(ABC):
    """One model in training. Accuracies are in percent, times in seconds."""

    def __init__(self, precision: str = "fp32", on_nan: str = "stop") -> None:
        self.precision = precision
        self.skipping = on_nan == "skip"
        #: Optimizer steps taken so far; the learning rate and the random streams follow it.
        self.step = 0
        #: By layer, the batches of the last epoch whose loss was not finite and which it skipped.
        self.skipped: dict[str, int] = {}
        self._means = RunningMeans(self.skipping)
        self._watch = LossWatch()

    def train(self, batches: Batches, lr: Callable[[int], float], progress: Progress) -> tuple[dict[str, Any], float]:
        """Train one epoch and return its mean losses (`Results.add` takes them by these names) and the time it took.

        The time covers loading, training and the drain of the pipeline, and nothing else. A `Mark` between two batches
        gets the state that the batches before it have left. After `load` this is the rest of the epoch, and the
        means are those of the whole. Raises NumbersError some batches after a loss that is not finite, and before a
        `Mark` gets to see what it has left.
        """
        self._mode(True)
        start = time.perf_counter()
        with mixed_precision(self.devices, self.precision):
            self._epoch(batches, lr, progress)
        self._synchronize()
        seconds = time.perf_counter() - start
        self._complain(self._watch.look(), lr)
        losses = self._losses(self._means.values())
        counts = zip(self.layers or ["the network"], self._means.left_out(), strict=False)
        self.skipped = {name: count for name, count in counts if count}
        self._means.clear()
        return losses, seconds

    def load(self, state: State) -> None:
        """Go on from a state that a `Mark` got, on whatever devices the model is."""
        self.step = state["step"]
        self._means.load(state["means"])
        self._load(state["model"])

    def _note(self, step: int, losses: list[Tensor], lr: Callable[[int], float]) -> None:
        """Add a batch's losses, one tensor per layer, to the means, and look at them now and then."""
        self._means.add(losses)
        if not self.skipping:
            self._complain(self._watch.add(step, losses), lr)

    def _hand_over(self, mark: Mark, state: State, lr: Callable[[int], float]) -> None:
        """Give the mark the state, if there is nothing in it that would spoil the checkpoint."""
        self._complain(self._watch.look(), lr)
        if not all_finite(state["model"]):
            raise NumbersError(
                f"after {state['step']} steps a weight, a moment or a statistic is not a finite number, at a learning "
                f"rate of {lr(state['step']):g}; lower the learning rate (the checkpoint before is kept)"
            )
        mark.ready(state)

    def _complain(self, found: tuple[int, int, list[float]] | None, lr: Callable[[int], float]) -> None:
        if found is None:
            return
        step, number, values = found
        names = ("associated loss", "auto-encoder loss") if self.layers else ("loss",)
        told = " and ".join(f"{name} is {value}" for name, value in zip(names, values, strict=True))
        where = f"layer {self.layers[number]}: the" if self.layers else "BP: the"
        raise NumbersError(
            f"{where} {told} on batch {step} (the first is 0), at a learning rate of {lr(step):g}; lower the learning "
            "rate, look at that data, or leave such batches out with --set on_nan=skip"
        )

    @torch.no_grad()
    def accuracies(self, batches: Iterable[tuple[Any, Tensor]]) -> list[float]:
        """Return the accuracy at every depth, the full depth last; BP has one depth."""
        self._mode(False)
        waiting: deque[Tensor] = deque()

        def inputs() -> Iterator[Any]:
            for x, labels in batches:
                waiting.append(labels)
                yield x

        right: list[Tensor] = []
        samples = 0
        with mixed_precision(self.devices, self.precision):
            for predictions in self._predict(inputs()):
                labels = waiting.popleft()
                # The sums stay on the device until the end: reading one makes the host wait.
                right.append(
                    torch.stack([(logits.argmax(-1) == labels.to(logits.device)).sum() for logits in predictions])
                )
                samples += len(labels)
        return (torch.stack(right).sum(0) * (100.0 / samples)).tolist()

    def usage(self) -> list[Usage]:
        """Return how each worker has spent its time in training; BP has no workers."""
        return []

    @property
    def layers(self) -> list[str]:
        """The names of the layers whose losses are reported; BP has one loss."""
        return []

    def __enter__(self) -> Trainer:
        return self

    def __exit__(  # noqa: B027 (BP has no threads to end)
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the trainer's threads, if any."""

    @abstractmethod
    def _mode(self, training: bool) -> None: ...

    @abstractmethod
    def _epoch(self, batches: Batches, lr: Callable[[int], float], progress: Progress) -> None:
        """Train on the batches; `self.step` and `self._means` follow."""

    @abstractmethod
    def _losses(self, means: list[Any]) -> dict[str, Any]:
        """Name the means of what was added to `self._means`, which are none before the first batch."""

    @abstractmethod
    def _load(self, model: dict[str, Any]) -> None: ...

    @abstractmethod
    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]: ...

    @property
    @abstractmethod
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""

    def _synchronize(self) -> None:
        """Wait for the devices to finish, so that a time means work done."""
        for device in set(self.devices):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
