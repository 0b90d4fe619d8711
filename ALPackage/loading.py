"""Whether a saved state fits a layer: weights and buffers by name and shape, moments by their place in the optimizer.

An optimizer's state knows its parameters by number alone, and takes whatever it is given. Moments of other parameters,
or of another kind of optimizer, would train wrongly, or fail at the first step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .layer import LocalLayer

#: How a message ends where the weights fit and the moments do not.
REMEDY = 'leave "optimizer" out of the state to load its weights and buffers alone'


def refuse_other_shapes(name: str, layer: LocalLayer, state: Mapping[str, Any]) -> None:
    """Raise ValueError if the weights and buffers of a state are not those of the layer, by name and shape."""
    own = {key: getattr(value, "shape", None) for key, value in layer.state_dict().items()}
    saved = {key: getattr(value, "shape", None) for key, value in state["layer"].items()}
    if own != saved:
        key = next(key for key in [*own, *saved] if own.get(key, ...) != saved.get(key, ...))
        raise ValueError(
            f"ALStack.load: the state of layer {name!r} does not fit it: {key} is {_shape_in(saved, key)} in the state "
            f"and {_shape_in(own, key)} in the layer"
        )


def refuse_other_moments(name: str, layer: LocalLayer, state: Mapping[str, Any]) -> None:
    """Raise ValueError if the moments of a state, if it has any, are not such as the layer's optimizer keeps.

    What that keeps, by name and shape, is seen from a step of a copy of it; where a copy cannot take one, only the
    number of parameters is compared.
    """
    if "optimizer" not in state:
        return
    moments = {number: kept for number, kept in state["optimizer"]["state"].items() if kept}
    held = [parameter for group in layer.optimizer.param_groups for parameter in group["params"]]
    groups = state["optimizer"].get("param_groups")
    saved = len(held) if groups is None else sum(len(group["params"]) for group in groups)
    beginning = f"ALStack.load: the moments of layer {name!r} do not fit its optimizer"
    if saved != len(held):
        raise ValueError(
            f"{beginning}, which holds {len(held)} parameters: they are of one with {saved}, as if others were frozen; "
            f"{REMEDY}"
        )
    kept = _after_a_step(layer.optimizer) if moments else None
    if kept is None:
        return
    names = {id(parameter): path for path, parameter in layer.named_parameters()}
    for number, found in moments.items():
        own, of = kept[number], names.get(id(held[number]), f"parameter {number}")
        if own.keys() != found.keys():
            raise ValueError(
                f"{beginning}: those of {of} are {', '.join(map(str, found))}, but {type(layer.optimizer).__name__} "
                f"keeps {', '.join(map(str, own)) or 'none'}; {REMEDY}"
            )
        for key, value in found.items():
            if isinstance(value, Tensor) and isinstance(own[key], Tensor) and value.shape != own[key].shape:
                raise ValueError(
                    f"{beginning}: {key} of {of} is of shape {tuple(value.shape)} in the state, and of "
                    f"{tuple(own[key].shape)} in the optimizer; {REMEDY}"
                )


def _after_a_step(optimizer: Optimizer) -> list[dict[str, Any]] | None:
    """Return by parameter what an optimizer keeps after a step, from a copy of it; None if that cannot take one."""
    try:
        copied = copy.deepcopy(optimizer)
        held = [parameter for group in copied.param_groups for parameter in group["params"]]
        for parameter in held:
            parameter.grad = torch.zeros_like(parameter)
        copied.step()
    except Exception:  # allowed: it may need a closure or gradients of its own kind, or refuse to be copied
        return None
    return [copied.state.get(parameter, {}) for parameter in held]


def _shape_in(shapes: Mapping[str, Any], key: str) -> str:
    if key not in shapes:
        return "not there"
    return "there" if shapes[key] is None else f"of shape {tuple(shapes[key])}"
