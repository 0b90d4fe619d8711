"""Asynchronous BP with a delay of one step: PipeDream-2BW (Narayanan et al., ICML 2021), over processes.

    forward    0 1   2   3   4  ..   micro-batches; nothing is flushed at the end of a batch
    backward       0   1   2   3 ..

Batch t is computed, forward and backward, with the weights before the last update, and updates the last ones:
W(t+1) = W(t) - step(gradient of batch t at W(t-1)). So two versions of the weights are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models import adamw

from .timing import Job, finite, per_batch, timed_run
from .workload import LR, Batch, Part, arguments, bp_layers, make_batches

FORWARD, BACKWARD = 0, 1
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class TwoVersions:
    """The weights of a part of a network before and after the last update.

    Args:
        part: Its parameters become the first version; buffers, such as running means, exist once.
        make_optimizer: Returns an optimizer of parameters.
    """

    def __init__(self, part: nn.Module, make_optimizer: Optimizer) -> None:
        first = {name: one for name, one in part.named_parameters() if one.requires_grad}
        second = {name: nn.Parameter(one.detach().clone()) for name, one in first.items()}
        self._versions = [first, second]
        self._optimizers = [make_optimizer(list(version.values())) for version in self._versions]
        self.updates = 0

    def of(self, batch: int) -> dict[str, nn.Parameter]:
        """Return the weights with which a batch is computed: those before the last update, which precedes it."""
        return self._versions[batch % 2]

    @property
    def newest(self) -> dict[str, nn.Parameter]:
        """The weights after the last update."""
        return self._versions[(self.updates + 1) % 2]

    def update(self, lr: float | None = None) -> None:
        """Apply the gradients of the next batch, which stand at its version; its place gets the new weights."""
        used, last = self._versions[self.updates % 2], self.newest
        of_used, of_last = self._optimizers[self.updates % 2], self._optimizers[(self.updates + 1) % 2]
        with torch.no_grad():
            for name, weight in used.items():
                weight.copy_(last[name])
                # The moments are those of all updates so far.
                if last[name] in of_last.state:
                    of_used.state[weight] = of_last.state.pop(last[name])
        if lr is not None:
            for group in of_used.param_groups:
                group["lr"] = lr
        of_used.step()
        of_used.zero_grad(set_to_none=True)
        self.updates += 1


@dataclass
class _Micro:
    """A part of a batch on its way. `share`: its rows of those of the batch."""

    batch: int
    features: Tensor
    others: dict[str, Tensor]
    labels: Tensor
    share: float
    last: bool
    received: Tensor | None = None
    output: Tensor | None = None
    gradient: Tensor | None = None
    work: Any = None


class DelayedStage:
    """One of the processes, in the default process group: the layers of stage `rank`.

    Args:
        layers: Of the whole network; those of earlier stages are given up.
        cut: How many of them each stage has.
        micro: Into how many parts a batch is divided; at least the number of stages less one.
        lr: Gives the learning rate of a step; by default the optimizer's own.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        cut: list[int],
        micro: int,
        make_optimizer: Optimizer,
        lr: Callable[[int], float] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ) -> None:
        rank = dist.get_rank()
        self.micro, self.lr, self.loss = micro, lr, loss
        self.ahead = len(cut) - 1 - rank
        if micro < len(cut) - 1:
            raise ValueError(f"micro: got {micro} for {len(cut)} stages; that needs a third version of the weights")
        start = sum(cut[:rank])
        self.before = rank - 1 if rank else None
        self.after = rank + 1 if self.ahead else None
        self.part = Part(layers[start : start + cut[rank]])
        self.weights = TwoVersions(self.part, make_optimizer)
        #: Only says which shape arrives here.
        self._preceding = Part(layers[:start]).to("meta")
        self._shapes: dict[torch.Size, torch.Size] = {}
        self._sending: deque[tuple[Any, Tensor]] = deque()
        self.sent: dict[int, int] = {}

    def run(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Train on batches, which every process is given alike; yield the loss of each, on the last stage."""
        flying: deque[_Micro] = deque()
        losses: list[Tensor] = []
        coming = self._expected(batches)
        following = next(coming, None)
        while following is not None or flying:
            if following is not None:
                one, following = following, next(coming, None)  # what comes next is received beside the work
                self._forward(one)
                flying.append(one)
                if following is not None and len(flying) <= self.ahead:
                    continue
            done = flying.popleft()
            losses += self._backward(done)
            if done.last:
                self.weights.update(None if self.lr is None else self.lr(self.weights.updates))
                if losses:
                    yield torch.stack(losses).sum()
                    losses.clear()
        while self._sending:
            self._sending.popleft()[0].wait()

    @torch.no_grad()
    def predict(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Yield what the newest weights make of batches, on the last stage; in the mode of `part`."""
        for x, _ in batches:
            features, others = arguments(x)
            if self.before is not None:
                features = torch.empty(self._shape(features, others))
                dist.recv(features, self.before)
            out = functional_call(self.part, {**self.weights.newest}, (features,), others)
            if self.after is not None:
                dist.send(out, self.after)
            else:
                yield out

    def _expected(self, batches: Iterable[Batch]) -> Iterator[_Micro]:
        """Yield micro-batches, each with its receive under way."""
        for number, (x, labels) in enumerate(batches, start=self.weights.updates):
            features, others = arguments(x)
            parts = {name: value.chunk(self.micro) for name, value in others.items()}
            pieces = list(zip(features.chunk(self.micro), labels.chunk(self.micro), strict=True))
            for index, (piece, of_piece) in enumerate(pieces):
                own = {name: values[index] for name, values in parts.items()}
                share, last = len(of_piece) / len(labels), index == len(pieces) - 1
                one = _Micro(number, piece, own, of_piece, share, last)
                if self.before is not None:
                    one.received = torch.empty(self._shape(piece, own))
                    one.work = dist.irecv(one.received, self.before, tag=FORWARD)
                yield one

    def _forward(self, one: _Micro) -> None:
        features = one.features
        if one.received is not None:
            one.work.wait()
            features = one.received.requires_grad_()
        out = functional_call(self.part, {**self.weights.of(one.batch)}, (features,), one.others)
        if self.after is None:
            out = self.loss(out, one.labels) * one.share
        else:
            one.gradient = torch.empty_like(out)
            one.work = dist.irecv(one.gradient, self.after, tag=BACKWARD)
            self._send(out.detach(), self.after, FORWARD)
        one.output = out

    def _backward(self, one: _Micro) -> list[Tensor]:
        assert one.output is not None
        if one.gradient is not None:
            one.work.wait()
        torch.autograd.backward(one.output, one.gradient)
        if self.before is not None:
            assert one.received is not None
            assert one.received.grad is not None
            self._send(one.received.grad, self.before, BACKWARD)
        return [one.output.detach()] if self.after is None else []

    def _send(self, tensor: Tensor, peer: int, tag: int) -> None:
        tensor = tensor.contiguous()
        self._sending.append((dist.isend(tensor, peer, tag=tag), tensor))
        self.sent[peer] = self.sent.get(peer, 0) + tensor.numel() * tensor.element_size()
        while len(self._sending) > 2 * (self.ahead + 2):
            self._sending.popleft()[0].wait()

    def _shape(self, features: Tensor, others: dict[str, Tensor]) -> torch.Size:
        """Return the shape of what this stage gets for a micro-batch."""
        if features.shape not in self._shapes:
            there = {name: value.to("meta") for name, value in others.items()}
            with torch.no_grad():
                self._shapes[features.shape] = self._preceding(features.to("meta"), **there).shape
        return self._shapes[features.shape]


def train_delayed(job: Job) -> dict[str, Any]:
    """Train the BP form so, against the clock; the pipeline fills and drains once."""
    layers = [layer for _, layer in bp_layers(job["model"], job["size"])]
    stage = DelayedStage(layers, job["cut"], job["micro"], lambda own: adamw(own, lr=LR, weight_decay=0.0))
    batches = make_batches(job["model"], job["size"])

    def run(first: int, count: int) -> float | None:
        losses = list(stage.run(islice(cycle(batches), first, first + count)))
        return finite(losses[-1]) if losses else None

    result = timed_run(run, job, dist.barrier)
    return {**result, "sent": per_batch(stage.sent, job)}
