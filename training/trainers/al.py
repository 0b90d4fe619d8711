"""The trainer of an AL stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ALPackage import ALStack, Snapshot, make_schedule
from ALPackage.nan_guard import Guard
from ALPackage.stage.trace import Usage

from .means import Mark
from .trainer import Batches, Progress, Trainer, load_moments


class ALTrainer(Trainer):
    """Trains an AL stack under a schedule; `options` as for `ALPackage.make_schedule`."""

    def __init__(
        self, stack: ALStack, schedule: str, *, precision: str = "fp32", on_nan: str = "stop", **options: Any
    ) -> None:
        super().__init__(precision, on_nan)
        self.stack = stack
        for layer in stack if self.skipping else ():
            layer.guard = Guard()
        self.schedule = make_schedule(schedule, stack, **options)

    def _epoch(self, batches: Batches, lr: Callable[[int], float], progress: Progress) -> None:
        for losses in self.schedule.run(self._marked(batches, lr), lr=lr, first=self.step):
            values = [torch.stack(list(layer.values())) for layer in losses]
            self._note(self.step, values, lr)
            self.step += 1
            progress(losses[-1])

    def _marked(self, batches: Batches, lr: Callable[[int], float]) -> Iterator[tuple[Any, Tensor] | Snapshot]:
        """Have the layers' states taken as the marks pass them: no layer waits for another."""

        def passed(mark: Mark, snapshot: Snapshot) -> None:
            # What the last layer has handed over by now is all of the batches before the mark, and no other.
            state = {"step": snapshot.number, "means": self._means.state(), "model": snapshot.state}
            self._hand_over(mark, state, lr)

        for item in batches:
            yield Snapshot(partial(passed, item)) if isinstance(item, Mark) else item

    def _losses(self, means: list[Any]) -> dict[str, Any]:
        return {"assoc_loss": [mean[0] for mean in means], "ae_loss": [mean[1] for mean in means]}

    def _load(self, model: dict[str, Any]) -> None:
        for name, layer in self.stack.items():
            layer.load_state_dict(model[name]["layer"])
            load_moments(layer.optimizer, model[name]["optimizer"])

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
