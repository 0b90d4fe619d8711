"""What travels from layer to layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..layer import LearningRate
from ..nested import tensors, versions

#: The losses of every layer, first to last, by name; 0-d tensors.
LocalLosses = list[dict[str, Tensor]]


class Seal:
    """The state of the tensors that a layer, or the loader, has handed on."""

    def __init__(self, giver: str, tree: Any) -> None:
        self._giver = giver
        self._tensors = tensors(tree)
        self._versions = versions(self._tensors)

    def verify(self) -> None:
        """Raise RuntimeError if a tensor has been changed since."""
        if versions(self._tensors) != self._versions:
            who = "the loader" if self._giver == "loader" else f"layer {self._giver!r}"
            raise RuntimeError(
                f"{who} handed on a tensor that was changed in place afterwards, so what comes next would depend on "
                "timing; hand on a new tensor every time (for example with .clone())"
            )


@dataclass(eq=False)
class Batch:
    """What travels from layer to layer: the batch's number and learning rate go with its tensors.

    `train`: False for a batch that is only predicted on; `codes` then gets b's output of every layer. `event`: on a
    GPU, what a reader of the tensors waits for.
    """

    number: int
    x: Any
    y: Any = None
    lr: LearningRate | None = None
    train: bool = True
    losses: LocalLosses = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    event: Any = None
    sealed: Seal | None = None

    def seal(self, giver: str) -> Batch:
        """Note the state of the tensors that `giver` hands on; return the batch."""
        self.sealed = Seal(giver, (self.x, self.y))
        return self

    def verify(self) -> None:
        """Raise RuntimeError if the tensors were changed after they were handed on."""
        if self.sealed is not None:
            self.sealed.verify()
