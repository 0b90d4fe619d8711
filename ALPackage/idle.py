"""Which functions of a layer no loss trains: those of which no parameter gets a gradient.

A function under `torch.no_grad()`, or whose output is detached, keeps its initial weights without any error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from .base import AL
from .layer import LocalLayer
from .objectives.headed import Headed


def note_gradients(layer: LocalLayer) -> set[int]:
    """Return a set that receives the ids of this copy's parameters as they get a gradient."""
    reached: set[int] = set()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.register_hook(partial(_note, reached, id(parameter)))  # type: ignore[no-untyped-call]
    return reached


def _note(reached: set[int], key: int, _: Tensor) -> None:
    reached.add(key)


def _functions(layer: LocalLayer) -> dict[str, Any]:
    """Return the functions of a layer that its losses train, by name; none for a layer of somebody else's kind."""
    if isinstance(layer, AL):
        return {"f": layer.enc.f, "b": layer.enc.b, "g": layer.ae.g, "h": layer.ae.h}
    return {"f": layer.f, **dict(layer.heads.items())} if isinstance(layer, Headed) else {}


def without_gradient(layer: LocalLayer, reached: set[int]) -> list[str]:
    """Return the functions of which not one parameter got a gradient; single ones may have a reason of their own."""
    found = []
    for name, function in _functions(layer).items():
        held = function.parameters() if isinstance(function, nn.Module) else ()  # or a plain function
        trained = [id(one) for one in held if one.requires_grad]
        if trained and not reached.intersection(trained):
            found.append(name)
    return found
