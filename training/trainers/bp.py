"""The trainer of a BP stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ALPackage.nan_guard import Guard
from ALPackage.randomness import dropouts, seed_dropouts
from models import BPModel, adamw

from .means import Mark, copy_state
from .trainer import Batches, Progress, Trainer, load_moments


class BPTrainer(Trainer):
    """Trains a BP stack end to end with AdamW on cross-entropy. `seed`: of the layers' random streams.

    `label_smoothing`: the share of the target that goes to all classes alike.
    """

    def __init__(
        self,
        model: BPModel,
        *,
        lr: float,
        weight_decay: float,
        label_smoothing: float = 0.0,
        precision: str = "fp32",
        on_nan: str = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__(precision, on_nan)
        self.model = model
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.optimizer = adamw(model.parameters(), lr=lr, weight_decay=weight_decay)

    def _epoch(self, batches: Batches, lr: Callable[[int], float], progress: Progress) -> None:
        guard = Guard()
        drops = [(name, layer, dropouts(layer)) for name, layer in self.model.layers.items()]
        for item in batches:
            if isinstance(item, Mark):
                state = {"step": self.step, "means": self._means.state(), "model": self._state()}
                self._hand_over(item, state, lr)
                continue
            x, labels = item
            for name, layer, inside in drops:  # derived, as AL's are, so that a run can go on anywhere
                seed_dropouts(layer, inside, self.seed, name, self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = lr(self.step)
            if self.skipping:
                guard.save_buffers(self.model.buffers())
            logits = self.model(x)
            loss = F.cross_entropy(logits.float(), labels.to(logits.device), label_smoothing=self.label_smoothing)
            torch.autograd.backward(loss)
            if self.skipping:
                guard.step(self.optimizer, loss)
            else:
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._note(self.step, [loss.detach()], lr)
            self.step += 1
            progress({"loss": loss.detach()})

    def _losses(self, means: list[Any]) -> dict[str, Any]:
        return {"loss": means[0] if means else float("nan")}

    def _state(self) -> dict[str, Any]:
        layers = {name: layer.state_dict() for name, layer in self.model.layers.items()}
        state: dict[str, Any] = copy_state({"layers": layers, "optimizer": self.optimizer.state_dict()})
        return state

    def _load(self, model: dict[str, Any]) -> None:
        for name, layer in self.model.layers.items():
            layer.load_state_dict(model["layers"][name])
        load_moments(self.optimizer, model["optimizer"])

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        for x in inputs:
            yield [self.model(x)]

    def _mode(self, training: bool) -> None:
        self.model.train(training)

    @property
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""
        return self.model.devices
