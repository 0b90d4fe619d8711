"""BP with some of the layers in every rank: the schedules of torch.distributed.pipelining, over micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)
from torch.distributed.pipelining.schedules import PipelineScheduleMulti

from models import BPModel, adamw

from .ddp import has_batch_statistics
from .group import Do, Group, Order
from .stage import Stage, padded, split_input
from .trainer import ParallelTrainer
from .upcoming import Upcoming

SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zb": ScheduleInterleavedZeroBubble,
}
#: Micro-batches per rank that a batch is divided into.
MICRO_BATCHES = 2
#: The label of rows that fill up a batch.
NOT_A_ROW = -100
CPU = torch.device("cpu")


class PipelineTrainer(ParallelTrainer):
    """Trains a network whose layers are in stages, stage s in rank s modulo the number of ranks.

    Rank 0 has the data, and the whole network to measure and to keep it. The others are told the labels and lengths.

    Args:
        model: On rank 0 with the weights to begin with.
        way: A key of `SCHEDULES`.
        stages: The stage of every layer.
        shapes: Of what every layer hands on, without the rows: (dtype, shape), as words and numbers.
        positions: The length that texts are padded to; None for images.
    """

    def __init__(
        self,
        model: BPModel,
        group: Group,
        *,
        way: str,
        stages: Sequence[int],
        shapes: Sequence[tuple[str, Sequence[int]]],
        positions: int | None = None,
        weight_decay: float,
        **options: Any,
    ) -> None:
        super().__init__(model, group, weight_decay=weight_decay, **options)
        self._way, self._stages, self._shapes, self._positions = way, list(stages), list(shapes), positions
        self._micro = MICRO_BATCHES * group.world
        self._least = 2 if has_batch_statistics(model) else 1
        names = list(model.layers)
        self._ranks = dict(zip(names, (stage % group.world for stage in stages), strict=True))
        self.held = {name: layer for name, layer in model.layers.items() if self._ranks[name] == group.rank}
        weights = [weight for layer in self.held.values() for weight in layer.parameters()]
        self.optimizer = adamw(
            weights or [nn.Parameter(torch.empty(0))],  # an optimizer needs one
            lr=options["lr"],
            weight_decay=weight_decay,
        )
        devices = dict(zip(names, model.devices, strict=True))
        self._parts: dict[int, Stage] = {
            stage: Stage(
                {name: model.layers[name] for name, one in zip(names, stages, strict=True) if one == stage}, devices
            )
            for stage in range(group.rank, max(stages) + 1, group.world)
        }
        #: By the rows of a micro-batch.
        self._schedules: dict[int, Any] = {}
        #: Whether rank 0 has other weights of the other ranks' layers than these have.
        self._stale = False
        self._share_weights()

    @property
    def notes(self) -> list[str]:
        """What makes the numbers others than those of one process, one line each."""
        notes = [
            f"{self._micro} micro-batches; a batch that they do not divide is filled up with rows that count nothing"
        ]
        if self._least == 2:
            notes.append("batch normalization takes the statistics of a micro-batch, and those that fill it up")
        if self._positions is not None:
            notes.append(f"texts are padded to {self._positions} positions")
        return notes

    def _share_weights(self) -> None:
        group, model = self.group, self.model
        with group.connected():
            if group.leads:
                for peer in range(1, group.world):
                    group.send(peer, {name: model.layers[name].state_dict() for name in self._layers_of(peer)})
                return
            for name, state in group.receive(0).items():
                model.layers[name].load_state_dict(state)
        for name in self._ranks:
            if name not in self.held:
                model.layers[name] = nn.Identity()  # gives back its memory

    def _layers_of(self, rank: int) -> list[str]:
        """Return the names of the layers that a rank trains."""
        return [name for name, one in self._ranks.items() if one == rank]

    def _part(self, x: Any, labels: Tensor, step: int, rate: float) -> Tensor:
        inputs, lengths = split_input(x)
        for peer in range(1, self.group.world):
            self.group.send(peer, (labels, lengths))
        self._stale = True
        return self._step(inputs, lengths, labels, step, rate)

    def _follow(self, order: Order, batches: Upcoming | None) -> None:
        if order.do == Do.STEP:
            labels, lengths = self.group.receive(0)
            self._step(None, lengths, labels, order.step, order.rate)
        elif order.do == Do.STATE:
            self.group.send(0, self._own_state())
        else:
            super()._follow(order, batches)

    def _step(self, x: Tensor | None, lengths: Tensor | None, labels: Tensor, step: int, rate: float) -> Tensor:
        total = len(labels)
        rows = max(self._least, ceil(total / self._micro))
        filled = torch.arange(rows * self._micro) % total
        labels = labels.cpu()[filled]
        labels[total:] = NOT_A_ROW
        lengths = None if lengths is None else lengths.cpu()[filled]
        self._begin(step, rate)
        for part in self._parts.values():
            part.begin(lengths, rows, len(filled), self.seed, step)
        self._total = total
        inputs = () if x is None else (padded(x.cpu(), self._positions)[filled],)
        last = max(self._stages) in self._parts
        losses: list[Tensor] = []
        targets: dict[str, Any] = {"target": labels, "losses": losses} if last else {}
        try:
            self._schedule(rows).step(*inputs, **targets, return_outputs=False)
        except RuntimeError as error:
            if error.__cause__ is None:
                raise
            raise error.__cause__ from None  # torch has put its own words around a layer's error
        # In one type, whatever the model's is: each rank has to know what it gets.
        loss = torch.stack([one.detach() for one in losses]).double().sum() if last else torch.zeros(()).double()
        dist.broadcast(loss, max(self._stages) % self.group.world, self.group.process_group)
        self._update(loss)
        return loss

    def _schedule(self, rows: int) -> Any:
        """Return the schedule for micro-batches of so many rows."""
        if rows not in self._schedules:
            count = max(self._stages) + 1
            stages = [
                PipelineStage(
                    part,
                    number,
                    count,
                    CPU,
                    input_args=self._example(number - 1, rows),
                    output_args=self._example(number, rows),
                    group=self.group.process_group,
                )
                for number, part in self._parts.items()
            ]
            kind = SCHEDULES[self._way]
            own: Any = stages if issubclass(kind, PipelineScheduleMulti) else stages[0]
            self._schedules[rows] = kind(own, self._micro, loss_fn=self._loss_of_rows, scale_grads=False)
        return self._schedules[rows]

    def _example(self, stage: int, rows: int) -> Tensor:
        """Return a tensor as a stage hands it on; before the first there is no stage, and only its rows matter."""
        if stage < 0:
            return torch.empty(rows, 1)
        last = max(layer for layer, one in enumerate(self._stages) if one == stage)
        dtype, shape = self._shapes[last]
        return torch.empty(rows, *shape, dtype=getattr(torch, dtype), requires_grad=True)

    def _loss_of_rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what a micro-batch adds to the mean over the batch."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        summed = F.cross_entropy(
            logits, labels, reduction="sum", ignore_index=NOT_A_ROW, label_smoothing=self.label_smoothing
        )
        return summed / self._total

    def _own_state(self) -> dict[str, Any]:
        return super()._state()

    def _state(self) -> dict[str, Any]:
        state = self._own_state()
        with self.group.connected():
            self.group.tell(Order(Do.STATE))
            for peer in range(1, self.group.world):
                state |= self.group.receive(peer)
        for name, layer in self.model.layers.items():
            if name not in self.held:
                layer.load_state_dict(state[name]["layer"])
        self._stale = False
        return {name: state[name] for name in self._ranks}

    def _load(self, layers: Mapping[str, Any]) -> None:
        for name, layer in self.model.layers.items():
            layer.load_state_dict(layers[name]["layer"])
        super()._load(layers)

    def _predict(self, inputs: Any) -> Any:
        if self._stale:
            self._state()
        yield from super()._predict(inputs)
