"""Which parameters the optimizers of a layer update, and whether these are the ones that the layer has.

An optimizer keeps the Parameter objects that it was given. A Parameter that takes the place of another one
(`load_state_dict(assign=True)`, a module that is replaced, a weight norm that is applied later), or that gets
`requires_grad` later, is not among them: it would keep its value for ever, without any error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .errors import LayerError, UnfitLayersError

#: Names that a message gives in full.
NAMED = 3
#: What every module holds, none of it an optimizer.
OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def optimizers(layer: nn.Module) -> list[Any]:
    """Return every optimizer that the layer or a module in it holds, its attribute `optimizer` first."""
    found = {id(optimizer): optimizer for optimizer in (getattr(layer, "optimizer", None),) if optimizer is not None}
    for module in layer.modules():
        for key, value in vars(module).items():
            if key in OF_EVERY_MODULE:
                continue
            if isinstance(value, Optimizer):
                found[id(value)] = value
            elif type(value) in (list, tuple, dict):
                held = value.values() if type(value) is dict else value
                found |= {id(one): one for one in held if isinstance(one, Optimizer)}
    return list(found.values())


def refuse_untrained(name: str, layer: nn.Module) -> None:
    """Raise UnfitLayersError unless the layer's optimizers hold every parameter that is to train, and no other."""
    groups = [group for optimizer in optimizers(layer) for group in optimizer.param_groups]
    held = {id(parameter): parameter for group in groups for parameter in group["params"]}
    untrained = []
    for path, parameter in layer.named_parameters():
        if is_lazy(parameter):
            raise UnfitLayersError(
                f"layer {name!r}: {path} has no shape yet (a lazy module); take one batch through the stack first: "
                "with torch.no_grad(): stack(x, y)"
            )
        if held.pop(id(parameter), None) is None and parameter.requires_grad:
            untrained.append(path)
    if not untrained and not held:
        return
    others = f"{len(held)} parameter{'s' if len(held) > 1 else ''} that the layer does not have"
    if untrained:
        finding = f"{_some(untrained)} would never train: in no optimizer of the layer"
        finding += f", which holds {others} instead" if held else ""
        remedy = "call reset_optimizer() on the layer, or requires_grad_(False) on what is to stay as it is"
    else:
        finding, remedy = f"the optimizer holds {others}", "call reset_optimizer() on the layer"
    raise UnfitLayersError(f"layer {name!r}: {finding}; after parameters are replaced or unfrozen, {remedy}")


def reset(layer: nn.Module) -> None:
    """Give the layer's optimizers, in place, the parameters that are to train, and drop what they have collected.

    A parameter that one of them holds already stays in its group. A new one goes into the only group, or into the one
    that has the name of its path's first part. Raises LayerError where neither is there; nothing has changed then.
    """
    owners = optimizers(layer)
    groups: list[dict[str, Any]] = [group for optimizer in owners for group in optimizer.param_groups]
    homes = {id(parameter): number for number, group in enumerate(groups) for parameter in group["params"]}
    names = [group.get("name") for group in groups]
    members: list[list[nn.Parameter]] = [[] for _ in groups]
    for path, parameter in layer.named_parameters():
        if not parameter.requires_grad:
            continue
        home = homes.get(id(parameter), 0 if len(groups) == 1 else None)
        if home is None and names.count(first := path.split(".")[0]) == 1:
            home = names.index(first)
        if home is None:
            raise LayerError(
                f"{type(layer).__name__}.reset_optimizer: cannot tell which of the {len(groups)} parameter groups "
                f"{path} belongs to; give the layer a new optimizer instead"
            )
        members[home].append(parameter)
    for group, parameters in zip(groups, members, strict=True):
        group["params"][:] = parameters  # in place: L-BFGS keeps the list itself
    for optimizer in owners:
        optimizer.state.clear()


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


#: By layer, the settings of its optimizer that its own training step changes, such as a schedule-free optimizer's `k`.
OwnSettings = dict[str, set[str]]


def changed_settings(before: Any, after: Any) -> set[str]:
    """Return the names of the settings in which two optimizers of the same groups differ."""
    pairs = zip(before.param_groups, after.param_groups, strict=False)
    return {key for one, two in pairs for key in two if key != "params" and not same_setting(one.get(key), two[key])}


def same_setting(one: Any, two: Any) -> bool:
    """Tell whether two values of a parameter group's setting are the same; tensors are compared by value."""
    if one is two:
        return True
    try:
        return bool(torch.equal(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two)
    except Exception:  # values that cannot be compared: whatever an optimizer keeps in its groups
        return False
