"""The trainer of a model by back-propagation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from ALPackage import Snapshot
from ALPackage.nan_guard import Guard
from ALPackage.randomness import dropouts, seed_dropouts
from models import BPModel, adamw

from .losses import BatchLosses
from .trainer import Batches, LearningRate, Trainer, load_moments


class BPTrainer(Trainer):
    """Trains a model end to end with AdamW on cross-entropy.

    `label_smoothing`: the share of the target that is spread evenly over all classes. `seed`: root of the layers'
    random streams.
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
        super().__init__({"": ("loss",)}, {}, precision, on_nan)
        self.model = model
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.optimizer = adamw(model.parameters(), lr=lr, weight_decay=weight_decay)

    def _steps(self, batches: Batches, lr: LearningRate) -> Iterator[BatchLosses]:
        guard = Guard()
        layers = [(name, layer, dropouts(layer)) for name, layer in self.model.layers.items()]
        step = self.step
        for item in batches:
            if isinstance(item, Snapshot):
                item.number, item.state = step, self._state()
                if item.ready is not None:
                    item.ready(item)
                continue
            x, labels = item
            # Random numbers are derived from the step, as AL's are, so that a run can be resumed anywhere.
            for name, layer, inside in layers:
                seed_dropouts(layer, inside, self.seed, name, step)
            # By the step, not by a scheduler with a state of its own to save.
            for group in self.optimizer.param_groups:
                group["lr"] = lr(step)
            # A bad batch must not leave its mark on running statistics either.
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
            step += 1
            yield [{"loss": loss.detach()}]

    def _state(self) -> dict[str, Any]:
        """Return copies of the weights, buffers and moments by layer, as a snapshot of a stack has them."""
        # The optimizer numbers its parameters through; a layer's file numbers its own from 0.
        moments = self.optimizer.state_dict()["state"]
        state: dict[str, Any] = {}
        first = 0
        for name, layer in self.model.layers.items():
            count = len(list(layer.parameters()))
            own = {number - first: moments[number] for number in range(first, first + count) if number in moments}
            state[name] = tree_map(_copy, {"layer": layer.state_dict(), "optimizer": {"state": own}})
            first += count
        return state

    def _load(self, layers: Mapping[str, Any]) -> None:
        moments: dict[int, Any] = {}
        first = 0
        for name, layer in self.model.layers.items():
            layer.load_state_dict(layers[name]["layer"])
            moments |= {first + number: state for number, state in layers[name]["optimizer"]["state"].items()}
            first += len(list(layer.parameters()))
        load_moments(self.optimizer, {"state": moments})

    def _predict(self, inputs: Iterable[Any]) -> Iterator[list[Tensor]]:
        for x in inputs:
            yield [self.model(x)]

    def _mode(self, training: bool) -> None:
        self.model.train(training)

    @property
    def devices(self) -> list[torch.device]:
        """The device of each layer, as torch names it."""
        return self.model.devices


def _copy(leaf: Any) -> Any:
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf
