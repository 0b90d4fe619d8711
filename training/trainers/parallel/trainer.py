"""What all ways to train BP over ranks have in common: rank 0 trains as ever, and the others do their parts."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Any

from torch import Tensor

from models import BPModel

from ..bp import BPTrainer
from .group import Do, Group, Order
from .upcoming import Upcoming


class ParallelTrainer(BPTrainer):
    """Trains a network together with the other ranks. Every rank makes one at the same time.

    On rank 0 it is a trainer as any other; the others call `serve`, which returns when rank 0 leaves its trainer.
    The options are those of `BPTrainer`.
    """

    def __init__(self, model: BPModel, group: Group, **options: Any) -> None:
        super().__init__(model, **options)
        self.group = group

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What makes the numbers others than those of one process, one line each."""

    @abstractmethod
    def _part(self, x: Any, labels: Tensor, step: int, rate: float) -> Tensor:
        """Do this rank's part of a step, and return the loss of the whole batch."""

    def _train(self, x: Any, labels: Tensor, step: int, rate: float) -> Tensor:
        with self.group.connected():
            self.group.tell(Order(Do.STEP, step, rate))
            return self._part(x, labels, step, rate)

    def serve(self, batches: Upcoming | None = None) -> None:
        """Do this rank's part of what rank 0 does, until it ends. Raises RankError where a rank is gone.

        `batches`: the same as rank 0's, where this rank reads any.
        """
        self._find_dropouts()
        with self._training():
            while True:
                # The number of the step, for whoever tells of an error in it.
                with self.group.connected():
                    order = self.group.heard()
                    self.step = order.step
                    if order.do == Do.END:
                        break
                    self._follow(order, batches)
        self.group.release()

    def _follow(self, order: Order, batches: Upcoming | None) -> None:
        if order.do == Do.STEP:
            assert batches is not None
            self._part(*batches.take(order.step), order.step, order.rate)
            batches.prepare(order.step + 1)  # while rank 0 makes its own
        elif order.do == Do.LOAD:
            super()._load(self.group.receive(0))

    def _load(self, layers: Any) -> None:
        super()._load(layers)
        with self.group.connected():
            self.group.tell(Order(Do.LOAD))
            for peer in range(1, self.group.world):
                self.group.send(peer, {name: layers[name] for name in self._layers_of(peer)})

    def _layers_of(self, rank: int) -> list[str]:
        """Return the names of the layers that a rank trains."""
        return list(self.model.layers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the other ranks' parts."""
        self.group.close(failed=error is not None)
