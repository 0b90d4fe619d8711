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
import torch.nn.functional as F
from torch import Tensor

from ALPackage import ALStack, make_schedule
from ALPackage.trace import Usage
from models import BPStack, adamw

__all__ = ["ALTrainer", "BPTrainer", "Trainer", "cosine_lr", "mixed_precision"]

Progress = Callable[[dict[str, Tensor]], None]


def cosine_lr(base: float, end: float, steps: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the step: half a cosine from `base` at 0 to `end` at `steps`."""
    return lambda step: end + (base - end) * 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / max(1, steps)))


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

    #: Optimizer steps taken so far; the learning rate and AL's random streams follow it.
    step: int = 0
    #: "fp32" or "bf16".
    precision: str = "fp32"

    def train(
        self, batches: Iterable[tuple[Any, Tensor]], lr: Callable[[int], float], progress: Progress
    ) -> tuple[dict[str, Any], float]:
        """Train one epoch and return its mean losses (`Results.add` takes them by these names) and the time it took.

        The time covers loading, training and the drain of the pipeline, and nothing else.
        """
        self._mode(True)
        start = time.perf_counter()
        with mixed_precision(self.devices, self.precision):
            losses = self._epoch(batches, lr, progress)
        self._synchronize()
        return losses, time.perf_counter() - start

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
    def _epoch(
        self, batches: Iterable[tuple[Any, Tensor]], lr: Callable[[int], float], progress: Progress
    ) -> dict[str, Any]: ...

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


class ALTrainer(Trainer):
    """Trains an AL stack under a schedule; `options` as for `ALPackage.make_schedule`."""

    def __init__(self, stack: ALStack, schedule: str, *, precision: str = "fp32", **options: Any) -> None:
        self.stack = stack
        self.precision = precision
        self.schedule = make_schedule(schedule, stack, **options)

    def _epoch(
        self, batches: Iterable[tuple[Any, Tensor]], lr: Callable[[int], float], progress: Progress
    ) -> dict[str, Any]:
        # The sums stay on each layer's device: reading a number there would make the host wait for it.
        sums: list[Tensor] | None = None
        count = 0
        for losses in self.schedule.run(batches, lr=lr, first=self.step):
            pairs = [torch.stack(pair).double() for pair in losses]
            sums = (
                [pair.clone() for pair in pairs]
                if sums is None
                else [total.add_(pair) for total, pair in zip(sums, pairs, strict=True)]
            )
            count += 1
            progress({"assoc": pairs[-1][0], "ae": pairs[-1][1]})
        self.step += count
        means = [(total / count).tolist() for total in sums or []]
        return {"assoc_loss": [mean[0] for mean in means], "ae_loss": [mean[1] for mean in means]}

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        return self.schedule.predict(inputs)

    def usage(self) -> list[Usage]:
        """Return how each worker has spent its time in training."""
        return self.schedule.usage()

    @property
    def layers(self) -> list[str]:
        """The names of the layers."""
        return self.stack.names

    def _mode(self, training: bool) -> None:
        self.stack.train(training)

    @property
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""
        return self.stack.devices

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the schedule's threads."""
        self.schedule.__exit__(kind, error, traceback)


class BPTrainer(Trainer):
    """Trains a BP stack end to end with AdamW on cross-entropy."""

    def __init__(self, model: BPStack, *, lr: float, weight_decay: float, precision: str = "fp32") -> None:
        self.model = model
        self.precision = precision
        self.optimizer = adamw(model.parameters(), lr=lr, weight_decay=weight_decay)

    def _epoch(
        self, batches: Iterable[tuple[Any, Tensor]], lr: Callable[[int], float], progress: Progress
    ) -> dict[str, Any]:
        total: Tensor | None = None
        count = 0
        for x, labels in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = lr(self.step)
            logits = self.model(x)
            loss = F.cross_entropy(logits.float(), labels.to(logits.device))
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            count += 1
            total = loss.detach().double() if total is None else total.add_(loss.detach())
            progress({"loss": loss.detach()})
        return {"loss": float(total) / count if total is not None else float("nan")}

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        for x in inputs:
            yield [self.model(x)]

    def _mode(self, training: bool) -> None:
        self.model.train(training)

    @property
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""
        return self.model.devices
