"""The trainer of a model by back-propagation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ALPackage import Snapshot
from ALPackage.nan_guard import Guard
from ALPackage.randomness import Dropout, dropouts, seed_dropouts
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
        #: The layers that are trained here, by name.
        self.held: dict[str, nn.Module] = dict(model.layers.items())
        self.optimizer = adamw(model.parameters(), lr=lr, weight_decay=weight_decay)
        self._guard = Guard()
        #: The layers by name, each with its dropouts.
        self._layers: list[tuple[str, nn.Module, list[Dropout]]] = []

    def _steps(self, batches: Batches, lr: LearningRate) -> Iterator[BatchLosses]:
        self._find_dropouts()
        step = self.step
        for item in batches:
            if isinstance(item, Snapshot):
                item.number, item.state = step, self._state()
                if item.ready is not None:
                    item.ready(item)
                continue
            x, labels = item
            loss = self._train(x, labels, step, lr(step))
            step += 1
            yield [{"loss": loss}]

    def _train(self, x: Any, labels: Tensor, step: int, rate: float) -> Tensor:
        """Take the optimizer step on one batch at a learning rate, and return the batch's loss."""
        self._begin(step, rate)
        loss = self._loss(self.model(x), labels)
        torch.autograd.backward(loss)
        self._update(loss)
        return loss.detach()

    def _find_dropouts(self) -> None:
        self._layers = [(name, layer, dropouts(layer)) for name, layer in self.held.items()]

    def _begin(self, step: int, rate: float) -> None:
        # Random numbers are derived from the step, as AL's are, so that a run can be resumed anywhere.
        for name, layer, inside in self._layers:
            seed_dropouts(layer, inside, self.seed, name, step)
        # By the step, not by a scheduler with a state of its own to save.
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # A bad batch must not leave its mark on running statistics either.
        if self.skipping:
            self._guard.save_buffers(self.model.buffers())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, in float32 at least."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels.to(logits.device), label_smoothing=self.label_smoothing)

    def _update(self, loss: Tensor) -> None:
        """Take the step for which the gradients are there, unless the loss is bad and such steps are skipped."""
        if self.skipping:
            self._guard.step(self.optimizer, loss)
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _state(self) -> dict[str, Any]:
        """Return copies of the weights, buffers and moments by layer, as a snapshot of a stack has them."""
        # The optimizer numbers its parameters through; a layer's file numbers its own from 0.
        moments = self.optimizer.state_dict()["state"]
        state: dict[str, Any] = {}
        first = 0
        for name, layer in self.held.items():
            count = len(list(layer.parameters()))
            own = {number - first: moments[number] for number in range(first, first + count) if number in moments}
            state[name] = tree_map(_copy, {"layer": layer.state_dict(), "optimizer": {"state": own}})
            first += count
        return state

    def _load(self, layers: Mapping[str, Any]) -> None:
        moments: dict[int, Any] = {}
        first = 0
        for name, layer in self.held.items():
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
