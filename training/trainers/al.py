"""The trainer of a stack of local layers: Associated Learning, or any other local objective."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import zip_longest
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ALPackage import ALStack, make_schedule
from ALPackage.exits.work import Work, count_work
from ALPackage.nan_guard import Guard
from ALPackage.ranks.report import RankReport
from ALPackage.schedules.distributed import Distributed
from ALPackage.stage.trace import Usage

from ..config.growth import Stage
from .losses import BatchLosses
from .trainer import Batches, LearningRate, Trainer, load_moments


class ALTrainer(Trainer):
    """Trains a stack under a schedule; `options` as for `ALPackage.make_schedule`.

    `work`: what inference costs, counted while all layers were in this process; without it `work()` counts.
    """

    def __init__(
        self,
        stack: ALStack,
        schedule: str,
        *,
        precision: str = "fp32",
        on_nan: str = "stop",
        work: Work | None = None,
        **options: Any,
    ) -> None:
        names = {name: layer.loss_names for name, layer in stack.items()}
        titles = {loss: title for layer in stack for loss, title in layer.loss_titles.items()}
        super().__init__(names, titles, precision, on_nan)
        self.stack = stack
        for layer in stack if self.skipping else ():
            layer.guard = Guard()
        #: Which parameters train where their layer is not frozen; asked now, while all layers are here.
        self._trainable = [[parameter.requires_grad for parameter in layer.parameters()] for layer in stack]
        self._stage = Stage(len(stack))
        self._work = work
        self._used: list[Usage] = []
        self.schedule = make_schedule(schedule, stack, **options)

    def begin(self, stage: Stage) -> None:
        """Have only these layers train from the next epoch on, and be measured; `usage` counts from here.

        Frozen layers are in evaluation mode: their running statistics stay, and nothing is dropped.
        """
        self._stage, self.losses.layers = stage, stage.layers
        for number, (layer, trainable) in enumerate(zip(self.stack, self._trainable, strict=True), start=1):
            if layer.lr_share != stage.factor(number):  # a new attribute would have CUDA graphs recorded anew
                layer.lr_share = stage.factor(number)
            for parameter, trains in zip(layer.parameters(), trainable, strict=True):
                parameter.requires_grad_(trains and layer.lr_share > 0)
        self._used = deepcopy(self.schedule.usage())

    def _steps(self, batches: Batches, lr: LearningRate) -> Iterator[BatchLosses]:
        # A snapshot passes through the layers like a batch: no layer waits for another to take it.
        return self.schedule.run(batches, lr=lr, first=self.step, layers=self._stage.layers)

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
        return self.schedule.predict(inputs, layers=self._stage.layers)

    def take_weights(self, layers: Mapping[str, Any]) -> bool:
        """Have these weights from now on, a state dict per layer, without moments: to predict, not to train."""
        self._load({name: {"layer": state, "optimizer": {"state": {}}} for name, state in layers.items()})
        return True

    def work(self, x: Any) -> Work | None:
        """Return what inference costs at every depth; None if the layers are elsewhere and it was not counted before.

        Raises ValueError where nothing can be counted.
        """
        return self._work if isinstance(self.schedule, Distributed) else count_work(self.stack, x)

    def usage(self) -> list[Usage]:
        """Return how each worker spent its time in training since the last `begin`."""
        # Ranks that had not been heard of then come last.
        pairs = zip_longest(self.schedule.usage(), self._used)
        return [now if before is None else now.since(before) for now, before in pairs]

    def ranks(self) -> tuple[list[RankReport], int]:
        """Return what every process holds and sends, and the bytes of all weights; nothing where there is one."""
        one = self.schedule
        return (one.reports(), one.weights) if isinstance(one, Distributed) else ([], 0)

    def _mode(self, training: bool) -> None:
        self.stack.train(training)
        for layer in self.stack if training else ():
            if layer.lr_share == 0:
                layer.eval()

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
