"""Train and measure one model: the same calls for local losses, under any schedule, and for BP."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ALPackage import Snapshot
from ALPackage.exits.work import Work
from ALPackage.ranks.report import RankReport
from ALPackage.stage.trace import Usage

from ..config.growth import Stage
from ..errors import NumbersError
from .losses import BatchLosses, EpochLosses, MeanLosses, first_not_finite

#: Called after every batch with the losses of the last layer.
Progress = Callable[[Mapping[str, Tensor]], None]
#: Batches of (x, labels), with snapshots between them.
Batches = Iterable[tuple[Any, Tensor] | Snapshot]
LearningRate = Callable[[int], float]


def cosine_lr(base: float, end: float, steps: int, warmup: float = 0.0) -> LearningRate:
    """Return the learning rate as a function of the step: half a cosine from `base` to `end` at `steps`.

    Before that, the rate rises linearly to `base` during the first `warmup` of the steps, a share in [0, 1).
    """
    rising = round(warmup * steps)

    def lr(step: int) -> float:
        if step < rising:
            return base * (step + 1) / (rising + 1)
        done = (min(step, steps) - rising) / max(1, steps - rising)
        return end + (base - end) * 0.5 * (1.0 + math.cos(math.pi * done))

    return lr


def load_moments(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Load the moments from `saved`, a state dict; options such as `fused` depend on the device and are kept."""
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
    """One model in training. Accuracies are in percent, times in seconds.

    `loss_names`: the names of the losses by layer, in order; a network with one loss is the layer "".
    `loss_titles`: how messages and pictures call them, where that is not the name.
    """

    def __init__(
        self,
        loss_names: Mapping[str, Sequence[str]],
        loss_titles: Mapping[str, str],
        precision: str = "fp32",
        on_nan: str = "stop",
    ) -> None:
        self.precision = precision
        self.skipping = on_nan == "skip"
        self.losses = EpochLosses(loss_names, self.skipping)
        self.loss_titles = dict(loss_titles)
        #: Optimizer steps taken so far; the learning rate and the random streams follow it.
        self.step = 0
        #: By layer, the batches of the last epoch that it skipped because a loss was not finite.
        self.skipped: dict[str, int] = {}
        self._lr: LearningRate = lambda step: math.nan

    def begin(self, stage: Stage) -> None:  # noqa: B027 (BP trains all layers, always)
        """Have only these layers train from the next epoch on, and be measured; `usage` counts from here."""

    def prepare(self, batch: tuple[Any, Tensor]) -> None:
        """Do everything that is done once before training, such as capturing CUDA graphs; no state changes."""
        with self._training():
            self._prepare(batch)
        self._synchronize()

    def train_epoch(self, batches: Batches, lr: LearningRate, progress: Progress) -> tuple[MeanLosses, float]:
        """Train one epoch and return its mean losses and the time it took.

        The time covers making the batches, training, the copies that checkpoints take, and the drain of the pipeline.
        After `load` this is the rest of the epoch, and the means are those of the whole. Raises NumbersError at most
        `EpochLosses.EVERY` batches after a loss that is not finite.
        """
        self._lr = lr
        start = time.perf_counter()
        with self._training():
            # The schedule pulls the batches; it yields the losses of a batch when the last layer is done with it.
            for losses in self._steps(batches, lr):
                self.losses.add(self.step, losses)
                self.step += 1
                if self.losses.due:
                    self._check_losses()
                progress(losses[-1])
        # Work that a GPU still has in its queue belongs to this epoch.
        self._synchronize()
        seconds = time.perf_counter() - start
        # The rest of the batches, which are fewer than a look waits for.
        self._check_losses()
        means, self.skipped = self.losses.means(), self.losses.skipped()
        self.losses.clear()
        return means, seconds

    def check(self, snapshot: Snapshot) -> None:
        """Raise NumbersError rather than let a checkpoint hold a number that is not finite."""
        # The sums first: their message names the batch.
        self._check_losses()
        layer = first_not_finite(snapshot.state)
        if layer is not None:
            raise NumbersError(
                f"{self._who(layer)}: a weight, a moment or a statistic is not a finite number after {snapshot.number} "
                f"steps, at a learning rate of {self._lr(snapshot.number or 0):g}; lower the learning rate (the "
                "checkpoint before is kept)"
            )

    def load(self, step: int, losses: Mapping[str, Any], layers: Mapping[str, Any]) -> None:
        """Continue from a checkpoint: the step, `EpochLosses.state()` and a snapshot's state, on any devices."""
        self.step = step
        self.losses.load(losses)
        self._load(layers)

    def _check_losses(self) -> None:
        """Raise NumbersError for a loss that was not finite, and say where it was."""
        if self.skipping or (bad := self.losses.look()) is None:
            return
        values = " and ".join(f"{self.loss_titles.get(name, name)} is {value}" for name, value in bad.losses.items())
        raise NumbersError(
            f"{self._who(bad.layer)}: the {values} on batch {bad.step} (the first is 0), at a learning rate of "
            f"{self._lr(bad.step):g}; lower the learning rate, look at that data, or leave such batches out with "
            "--set on_nan=skip"
        )

    def _who(self, layer: str) -> str:
        return f"layer {layer}" if layer in self.losses.names and layer else "BP"

    @torch.no_grad()
    def predict(self, batches: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the logits (B, C) of every depth, the full depth last, and the labels of each batch."""
        self._mode(False)
        # A pipeline takes in inputs before it yields predictions, so labels wait here for theirs.
        waiting: deque[Tensor] = deque()

        def inputs() -> Iterator[Any]:
            for x, labels in batches:
                waiting.append(labels)
                yield x

        with mixed_precision(self.devices, self.precision):
            for predictions in self._predict(inputs()):
                yield predictions, waiting.popleft()

    @torch.no_grad()
    def accuracies(self, batches: Iterable[tuple[Any, Tensor]]) -> list[float]:
        """Return the accuracy at every depth that there is, the full depth last; BP has one depth."""
        right: list[Tensor] = []
        samples = 0
        for predictions, labels in self.predict(batches):
            # The counts stay on the device until the end: reading one makes the host wait.
            right.append(torch.stack([(logits.argmax(-1) == labels.to(logits.device)).sum() for logits in predictions]))
            samples += len(labels)
        return (torch.stack(right).sum(0) * (100.0 / samples)).tolist()

    @property
    def depths(self) -> int:
        """How many depths predict."""
        return len(self.losses.names)

    def take_weights(self, layers: Mapping[str, Any]) -> bool:
        """Have these weights from now on, a state dict per layer, and train no more; False where it cannot be."""
        return False

    def work(self, x: Any) -> Work | None:
        """Return what inference on an input costs at every depth, if it is known; BP has one depth."""
        return None

    def usage(self) -> list[Usage]:
        """Return how each worker spent its time in training since the last `begin`; BP has no workers."""
        return []

    def ranks(self) -> tuple[list[RankReport], int]:
        """Return what every process holds and sends, and the bytes of all weights; BP has one process."""
        return [], 0

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Set the mode and the precision of training."""
        self._mode(True)
        with mixed_precision(self.devices, self.precision):
            yield

    def __enter__(self) -> Trainer:
        return self

    def __exit__(  # noqa: B027 (BP has no threads to end)
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the trainer's threads, if any."""

    @abstractmethod
    def _mode(self, training: bool) -> None: ...

    @abstractmethod
    def _steps(self, batches: Batches, lr: LearningRate) -> Iterator[BatchLosses]:
        """Train on the batches, hand the snapshots their state, and yield the losses of every batch, by layer."""

    @abstractmethod
    def _load(self, layers: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]: ...

    def _prepare(self, batch: tuple[Any, Tensor]) -> None:  # noqa: B027 (BP has nothing to prepare)
        pass

    @property
    @abstractmethod
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""

    def _synchronize(self) -> None:
        """Wait for the devices to finish, so that a time means work done."""
        for device in set(self.devices):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
