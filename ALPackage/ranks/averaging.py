"""Replicas of a layer, which train on other rows of the same batches: their gradients become those of the whole batch.

    gradient of the mean over all rows = sum over replicas of (rows of the replica / all rows) * gradient of its mean

One message per layer and batch holds gradients, losses and running statistics; every replica gets the same sums, so
their weights, moments and statistics stay equal bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..base import AL
from ..errors import LayerError, UnfitLayersError
from ..layer import LocalLayer
from ..randomness import Dropout, share_rows
from ..rows import Share
from ..stage.channel import Closed
from .link import Kind, PeerLost, Traffic

#: A replica may be behind by an evaluation. Ranks that died or hang are found by other means (see `alarm`).
UNLIMITED = timedelta(days=365)
#: Where the library's own objectives are.
OBJECTIVES = "ALPackage.objectives"


class ReplicaGroup:
    """The replicas of one layer.

    Attributes:
        ranks: Their ranks.
        waiting: Whether this one waits for the others.
        waited: Seconds that it has waited.
        in_step: Whether the layer is in a training step, in which all replicas are; elsewhere nobody would answer.
        closed: Whether nobody may wait any more.
    """

    def __init__(self, group: Any, ranks: Sequence[int]) -> None:
        self.ranks = list(ranks)
        self.traffic = Traffic()
        self.waiting = False
        self.waited = 0.0
        self.in_step = False
        self.closed = False
        self._group = group

    @property
    def peers(self) -> list[int]:
        """The ranks of the other replicas."""
        return [rank for rank in self.ranks if rank != dist.get_rank()]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the replicas' tensors, the same on all of them. Raises PeerLost."""
        there = values if values.device.type == "cpu" else values.cpu()
        there = there.contiguous()
        began = time.perf_counter()
        self.waiting = True
        try:
            if self.closed:  # asked only now: whoever closes looks for those who wait afterwards
                raise Closed
            there = self._sum(there)
        except RuntimeError as error:
            raise PeerLost(self.peers, error) from error
        finally:
            self.waiting = False
            self.waited += time.perf_counter() - began
        self.traffic.bytes[Kind.TRAIN] += there.nbytes
        return there.to(values.device)

    def _sum(self, there: Tensor) -> Tensor:
        if len(self.ranks) > 2:
            options = dist.AllreduceOptions()
            options.timeout = UNLIMITED
            self._group.allreduce([there], options).wait()
            return there
        # Two of them send each other as much as a ring does, in one step and not in two: of small tensors gloo's
        # takes 2 to 5 times as long (benchmarks/NOTES.md).
        theirs = torch.empty_like(there)
        [other] = self.peers
        works = [dist.isend(there, other, group=self._group), dist.irecv(theirs, other, group=self._group)]
        for work in works:
            assert work is not None  # it is for who is not in the group
            work.wait(UNLIMITED)
        return there + theirs  # in any order: the sum of two is the same bit for bit

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Leave it out of copies: they have no replicas."""


class GradientAveraging:
    """Gives a layer the gradients, losses and running statistics of the whole batch; one per layer.

    `share`: the rows of the batch in flight that are this replica's; there may be none.
    """

    def __init__(self, group: ReplicaGroup) -> None:
        self.share = Share(0, 1, 1)
        self.group = group
        self._dropouts: Sequence[Dropout] = ()
        #: Buffers besides running statistics, by their names, with their versions before the step.
        self._kept: list[tuple[str, Tensor, int]] | None = None
        #: Whether its batch normalizations count the rows of all replicas, so that each needs some.
        self.synchronized = False

    def begin(self, layer: LocalLayer, share: Share, dropouts: Sequence[Dropout]) -> None:
        """Note which rows of the next batch are this replica's. `dropouts`: the layer's `row_dropouts`."""
        self.share, self._dropouts = share, dropouts
        share_rows(dropouts, share)
        self.group.in_step = True
        known = {id(buffer) for one in normalizations(layer) for buffer in one.buffers()}
        if self._kept is None:
            named = [(name, one) for name, one in layer.named_buffers() if id(one) not in known]
            self._kept = [(name, one, one._version) for name, one in named]
        if not share.size and layer.guard is not None:
            layer.guard.save_buffers(layer.buffers())

    def end(self) -> None:
        """Have the layer draw and normalize for whole batches again."""
        share_rows(self._dropouts, None)
        self.group.in_step = False

    @property
    def waited(self) -> float:
        """Seconds that it has waited for the other replicas, their messages included."""
        return self.group.waited

    def backward(self, layer: LocalLayer) -> None:
        """Back-propagate the loss of this replica's rows, which counts as much as they do, and sum over the replicas.

        Raises LayerError for sparse and complex gradients, and for a buffer that would differ between replicas.
        """
        try:
            self._backward(layer)
        finally:
            self.end()

    def _backward(self, layer: LocalLayer) -> None:
        if self.share.size:
            layer.backward()
        elif self.synchronized:
            raise LayerError(
                f"a batch of {self.share.total} rows is too small for {len(self.group.ranks)} replicas with "
                "synchronized batch normalization, of which each needs a row; leave such a batch out"
            )
        changed = [name for name, buffer, version in self._kept or () if buffer._version != version]
        if changed:
            raise LayerError(
                f"the buffer {changed[0]} changes in training, and each replica would have another one; only running "
                "statistics of torch's normalizations are averaged"
            )
        parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        gradients = [parameter.grad for parameter in parameters]
        for gradient in gradients:
            if gradient is not None and (gradient.layout != torch.strided or gradient.is_complex()):
                what = "complex" if gradient.is_complex() else "sparse"
                raise LayerError(f"replicas cannot average {what} gradients (of an embedding: sparse=False)")
        losses = layer._last if self.share.size and layer._last is not None else {}
        statistics = running_statistics(layer)
        weight = self.share.weight
        kind = dict.fromkeys([torch.float32, *(one.dtype for one in (*parameters, *statistics))])
        wide = torch.float64 if torch.float64 in kind else torch.float32
        device = layer.device
        parts = [
            torch.zeros(parameter.numel(), device=device) if gradient is None else gradient.reshape(-1)
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
        # A parameter that no replica has a gradient for keeps none, or the optimizer would move it.
        parts.append(torch.tensor([float(gradient is not None) for gradient in gradients], device=device))
        parts += [losses[name].reshape(1) * weight if losses else torch.zeros(1) for name in layer.loss_names]
        # Of a replica without rows nothing counts, whatever it holds.
        parts += [one.reshape(-1) * weight if weight else torch.zeros(one.numel()) for one in statistics]
        sums = self.group.sum(torch.cat([part.to(device, wide) for part in parts]))
        self.group.traffic.messages[Kind.TRAIN] += 1

        sizes = [one.numel() for one in parameters] + [len(parameters)] + [1] * len(layer.loss_names)
        sizes += [one.numel() for one in statistics]
        pieces = iter(sums.split_with_sizes(sizes))
        totals = [next(pieces) for _ in parameters]
        for parameter, total, present in zip(parameters, totals, next(pieces).tolist(), strict=True):
            if not present:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))
        layer._last = {name: next(pieces).reshape(()).clone() for name in layer.loss_names}
        with torch.no_grad():
            for one in statistics:
                one.copy_(next(pieces).view_as(one))
            for module in normalizations(layer) if not self.share.size else ():
                if module.training and module.num_batches_tracked is not None:
                    module.num_batches_tracked.add_(1)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Leave it out of copies: they have no replicas."""


def normalizations(module: nn.Module) -> list[_NormBase]:
    """Return torch's normalizations in the module that may have running statistics."""
    return [one for one in module.modules() if isinstance(one, _NormBase)]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances that a step in the modules' present modes may change."""
    return [
        buffer
        for one in normalizations(module)
        if one.training
        for buffer in (one.running_mean, one.running_var)
        if buffer is not None
    ]


def refuse_inseparable(layers: Sequence[tuple[str, LocalLayer]]) -> None:
    """Raise UnfitLayersError for a layer whose loss mixes the rows of a batch, or that takes a step of its own."""
    for name, layer in layers:
        if not layer.row_separable:
            if _compares_rows(layer):
                raise UnfitLayersError(
                    f"layer {name!r} cannot have replicas: the loss of {type(layer).__name__} compares the rows of a "
                    "batch with one another"
                )
            raise UnfitLayersError(
                f"layer {name!r} cannot have replicas: its loss is not known to be a mean over the rows of a batch; "
                "where it is, say row_separable = True in the class of the layer, or of the criteria of an AL"
            )
        steps = ("forward", "backward", "backward_and_update", "losses", "loss")
        if own := [step for step in steps if _overridden(layer, step)]:
            raise UnfitLayersError(f"layer {name!r} cannot have replicas: {type(layer).__name__} overrides {own[0]}")
        for path, parameter in layer.named_parameters():
            if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
                raise UnfitLayersError(
                    f"layer {name!r} cannot have replicas: {path} has a hook, which would see the gradient of a part "
                    "of the rows"
                )


def _compares_rows(layer: LocalLayer) -> bool:
    """Tell whether it is a layer of the library's that says so in its class: nobody is to say otherwise there."""
    kind = type(layer)
    return kind.__module__.startswith(f"{OBJECTIVES}.") and kind.row_separable is False


def _overridden(layer: LocalLayer, name: str) -> bool:
    method = getattr(type(layer), name, None)
    return method is not None and method.__module__ not in (LocalLayer.__module__, AL.__module__)
