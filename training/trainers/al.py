"""The trainer of a stack of local layers: Associated Learning, or any other local objective."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ALPackage import ALStack, make_schedule
from ALPackage.nan_guard import Guard
from ALPackage.ranks.report import RankReport
from ALPackage.schedules.distributed import Distributed
from ALPackage.stage.trace import Usage

from .losses import BatchLosses
from .trainer import Batches, LearningRate, Trainer, load_moments


class ALTrainer(Trainer):
    """Trains a stack under a schedule; `options` as for `ALPackage.make_schedule`."""

    def __init__(
        self, stack: ALStack, schedule: str, *, precision: str = "fp32", on_nan: str = "stop", **options: Any
    ) -> None:
        names = {name: layer.loss_names for name, layer in stack.items()}
        titles = {loss: title for layer in stack for loss, title in layer.loss_titles.items()}
        super().__init__(names, titles, precision, on_nan)
        self.stack = stack
        for layer in stack if self.skipping else ():
            layer.guard = Guard()
        self.schedule = make_schedule(schedule, stack, **options)

    def _steps(self, batches: Batches, lr: LearningRate) -> Iterator[BatchLosses]:
        # A snapshot passes through the layers like a batch: no layer waits for another to take it.
        return self.schedule.run(batches, lr=lr, first=self.step)

    def _prepare(self, batch: tuple[Any, Tensor]) -> None:
        self.schedule.prepare(batch)

    def _load(self, layers: Mapping[str, Any]) -> None:
        if isinstance(self.schedule, Distributed):  # the layers are not all here
            self.schedule.load({name: _weights_and_moments(layers[name]) for name in self.stack.names})
            return
        for name, layer in self.stack.items():
            layer.load_state_dict(layers[name]["layer"])
            load_moments(layer.optimizer, layers[name]["optimizer"])

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        return self.schedule.predict(inputs)

    @property
    def whole(self) -> ALStack | None:
        """The layers, where all of them are in this process."""
        return None if isinstance(self.schedule, Distributed) else self.stack

    def usage(self) -> list[Usage]:
        """Return how each worker spent its time in training."""
        return self.schedule.usage()

    def ranks(self) -> tuple[list[RankReport], int]:
        """Return what every process holds and sends, and the bytes of all weights; nothing where there is one."""
        one = self.schedule
        return (one.reports(), one.weights) if isinstance(one, Distributed) else ([], 0)

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


def _weights_and_moments(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's state without its optimizer's options, which depend on the device."""
    return {"layer": state["layer"], "optimizer": {"state": state["optimizer"]["state"]}}
