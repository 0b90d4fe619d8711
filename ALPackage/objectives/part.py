"""A network's layers before they have an objective, and what an objective makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ..layer import LearningRate, LocalLayer

#: Called with parameter groups.
MakeOptimizer = Callable[..., Optimizer]


@dataclass(frozen=True)
class Part:
    """One layer of a network.

    Attributes:
        name: Of the layer.
        f: What it computes.
        bridge: Returns a new module from what `f` returns to (B, width), given the width.
        given: What `f` gets for an example, of which only structure, shapes and dtypes count; None if nobody has tried.
        returned: What `f` returns for it.
    """

    name: str
    f: nn.Module
    bridge: Callable[[int], nn.Module]
    given: Any = None
    returned: Any = None


class Objective(Protocol):
    """A local objective with its settings."""

    needs_example: ClassVar[bool]
    """Whether the parts must know what they get and return."""

    def layers(
        self, network: Sequence[Part], n_classes: int, lr: LearningRate, optimizer: MakeOptimizer
    ) -> dict[str, LocalLayer]:
        """Return the layers of a network by name.

        Initial weights are drawn layer by layer, in order: in another order the same seed would give another network.
        """

    def target(self, n_classes: int) -> Callable[[Tensor], Any]:
        """Return what turns labels int64 (B,) into the target of the first layer, and refuses others."""


def walked(network: Iterable[Part], example: Any) -> list[Part]:
    """Return the parts with what each gets and returns for an example, an input of the first one.

    Nothing is trained and nothing drawn: the parts are in evaluation mode meanwhile.
    """
    found = []
    x = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, example)
    for part in network:
        modes = {module: module.training for module in part.f.modules()}
        try:
            with torch.no_grad():
                returned = part.f.eval()(x)
        finally:
            for module, training in modes.items():
                module.training = training
        found.append(replace(part, given=x, returned=returned))
        x = returned
    return found
