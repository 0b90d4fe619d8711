"""What the model files in the earlier protocol have in common: a list of AL layers and the loops over it."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor

from ALPackage.base import *  # noqa: F403 (the style of those files)
from ALPackage.base import AL, nn


class Model(nn.Module):
    """AL layers in a ModuleList, driven by hand."""

    def __init__(self, layers: list[AL]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.num_layers = len(layers)

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        for layer in self.layers:
            x, y = layer(x, y)
        return x, y

    def backward(self) -> None:
        for layer in self.layers:
            layer.backward()

    def update(self) -> None:
        for layer in self.layers:
            layer.update()

    def threaded_step(self, x: Any, y: Any) -> None:
        """Train on one batch: a thread per layer for backward and update, while the next layers run forward."""
        threads = []
        for layer in self.layers:
            x, y = layer(x, y)
            thread = threading.Thread(target=layer.backward_and_update)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def inference(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.inference(x, "f")
        x = self.layers[-1].inference(x, "b")
        for layer in reversed(self.layers):
            x = layer.inference(x, "h")
        return x

    def loss(self) -> list[tuple[Tensor, Tensor]]:
        return [layer.loss() for layer in self.layers]

    def set_lr(self, sides: list[str], lr: float) -> None:
        for layer in self.layers:
            layer.set_lr(sides, lr)
