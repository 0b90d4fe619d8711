"""A marker among the batches that takes every layer's state as it passes: a checkpoint without a drain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from ..layer import LocalLayer


class Snapshot:
    """Put it between two batches of a run: it takes the state that training on the batches before it has left.

    In the pipeline the layers reach it one after another, each between the same two batches, so it holds the state of
    one moment of training although no layer has waited for another.

    Args:
        ready: Called with the snapshot on the caller's thread once the last layer has passed it, before the losses of
            the next batch are yielded.

    Attributes:
        state: By layer name, {"layer": .., "optimizer": ..} as `load_state_dict` of both takes them, on the CPU.
        number: The number of the next batch, from which training continues (`first` of a run).

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        >>> batches = [(torch.randn(5, 4), torch.randn(5, 3)) for _ in range(3)]
        >>> snapshot = Snapshot()
        >>> with make_schedule("continuous", ALStack([layer]), threads=1) as schedule:
        ...     done = len(list(schedule.run([*batches[:2], snapshot, batches[2]])))
        >>> done, snapshot.number, list(snapshot.state)
        (3, 2, ['layer_1'])
    """

    def __init__(self, ready: Callable[[Snapshot], None] | None = None) -> None:
        self.ready = ready
        self.number: int | None = None
        self.state: dict[str, dict[str, Any]] = {}

    def take(self, name: str, layer: LocalLayer) -> None:
        """Copy the state of one layer; on a GPU this waits for the current stream."""
        state = {"layer": layer.state_dict(), "optimizer": layer.optimizer.state_dict()}
        self.state[name] = tree_map(_on_cpu, state)


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf
