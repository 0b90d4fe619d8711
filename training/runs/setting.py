"""What is to be run: one method of a command, and where it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from data.batches import Batches

from ..checkpoints.store import Checkpoint, Store
from ..config.arguments import Arguments
from ..config.schema import Config, Method
from .shutdown import GracefulShutdown
from .tasks import Job


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One method of a command. `threads`: intra-op threads of a worker."""

    arguments: Arguments
    config: Config
    job: Job
    method: Method
    threads: int
    stopping: GracefulShutdown
    store: Store
    together: list[str]
    """The methods of the command that share this one's run."""
    resumed: Checkpoint | None
    """What an earlier process of the same command has left."""

    @property
    def seeds(self) -> list[int]:
        """The seed of each turn."""
        return [self.config.seed + turn for turn in range(1, self.arguments.turns + 1)]

    @property
    def finished(self) -> bool:
        """Whether an earlier process has done all of it."""
        return (
            self.resumed is not None and self.resumed.facts.turn_finished and self.resumed.facts.turn == len(self.seeds)
        )

    def batches(self, device: torch.device, **order: int) -> Batches:
        """Return the training batches on `device`; `order`: seed, epoch, and how many batches of it are done."""
        return Batches(self.job.data.train, self.job.batch_size, self.job.transform, device=device, **order)


def resolved_config(arguments: Arguments, config: Config, job: Job) -> dict[str, Any]:
    """Return the config as it was used, with what was derived from the data, ready for JSON."""
    values = {**config.model_dump(mode="json"), **job.resolved, "limit_train": arguments.limit_train}
    resolved: dict[str, Any] = json.loads(json.dumps(values))
    return resolved
