"""BP with the whole network in every rank, each of which has a part of every batch: DistributedDataParallel."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ALPackage.randomness import dropouts, share_rows
from models import BPModel

from .group import Group
from .rows import share
from .trainer import ParallelTrainer


class DataParallelTrainer(ParallelTrainer):
    """Trains copies of one network, each on its rows of every batch; the gradient is that of the mean over the batch.

    The weights start as rank 0's. Dropout draws as in one process. Batch normalization takes the statistics of a rank's
    own rows; those of rank 0 go into checkpoints and evaluation.
    """

    def __init__(self, model: BPModel, group: Group, **options: Any) -> None:
        super().__init__(model, group, **options)
        self._dropouts = dropouts(model)
        # Statistics of fewer than two rows are none.
        self._least = 2 if has_batch_statistics(model) else 1
        # What a forward pass does to buffers stays in its rank; torch has two names for that.
        names = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        local: dict[str, Any] = {sync: False}
        with group.connected():
            # Torch puts the gradients into other buckets after the first step, unless some may be missing. More than
            # two ranks sum in an order that depends on the place in a bucket, so a resumed run would differ there.
            self._replica = DistributedDataParallel(
                model,
                process_group=group.process_group,
                gradient_as_bucket_view=True,
                find_unused_parameters=True,
                **local,
            )

    @property
    def notes(self) -> list[str]:
        """What makes the numbers others than those of one process, one line each."""
        if self._least == 1:
            return []
        return ["batch normalization takes the statistics of each rank's rows; rank 0's are kept"]

    def _part(self, x: Any, labels: Tensor, step: int, rate: float) -> Tensor:
        total = len(labels)
        rows = share(total, self.group.world, self.group.rank, self._least)
        share_rows(self._dropouts, (rows.start, rows.stop, total))
        self._begin(step, rate)
        loss = self._loss(self._replica(rows.of(x)), rows.of(labels)) * rows.weight
        # Beside the backward pass: all ranks report the same loss, and skip the same steps.
        mean = loss.detach() / self.group.world
        summed = dist.all_reduce(mean, group=self.group.process_group, async_op=True)
        torch.autograd.backward(loss)
        assert summed is not None
        summed.wait()
        self._update(mean)
        return mean


def has_batch_statistics(model: nn.Module) -> bool:
    """Tell whether rows of a batch influence each other."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
