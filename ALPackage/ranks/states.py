"""What a rank keeps of the layers that are another's, and how states get from one rank to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from ..layer import LocalLayer
from ..optimized import optimizers
from ..stack import ALStack
from .chain import Chain

#: Entries of a parameter group that belong to where the layer is, and to this process.
OF_A_DEVICE = ("params", "capturable", "fused", "foreach")


def states_elsewhere(stack: ALStack, chain: Chain) -> dict[str, Any]:
    """Return the state of the layers that another rank has, as `load_layer` takes it, by their names."""
    alone = len(chain.group) == 1
    others = [pair for index, pair in enumerate(stack.items()) if not (alone and index in chain.own)]
    return {
        name: {
            "layer": (saved := layer.state_dict()),
            "other buffers": {path: one for path, one in _named_buffers(layer) if path not in saved},
            "optimizer": layer.optimizer.state_dict(),
        }
        for name, layer in others
    }


def load_layer(layer: LocalLayer, state: Mapping[str, Any]) -> None:
    """Load a layer's weights, buffers and moments; without "param_groups" the optimizer keeps its options.

    "other buffers": those that are not in a checkpoint, and that may have another shape here, or no values.
    """
    layer.load_state_dict(state["layer"])
    for path, one in state.get("other buffers", {}).items():
        holder, _, name = path.rpartition(".")
        setattr(layer.get_submodule(holder), name, one.to(layer.device, copy=True))
    saved = state["optimizer"]
    layer.optimizer.load_state_dict({**layer.optimizer.state_dict(), "state": saved["state"]})
    if "param_groups" in saved:
        _take_groups(layer, saved["param_groups"])


def options_of(layer: LocalLayer) -> dict[str, Any]:
    """Return the options of a layer's optimizer by group, its `lr_share`, and for each parameter whether it trains."""
    groups = [
        {name: value for name, value in group.items() if name not in OF_A_DEVICE}
        for group in layer.optimizer.param_groups
    ]
    trains = [parameter.requires_grad for parameter in layer.parameters()]
    return {"groups": groups, "lr_share": layer.lr_share, "trains": trains}


def take_options(layer: LocalLayer, options: Mapping[str, Any]) -> None:
    """Take over what `options_of` returned for the same layer on rank 0."""
    _take_groups(layer, options["groups"])
    layer.lr_share = options["lr_share"]
    for parameter, trains in zip(layer.parameters(), options["trains"], strict=True):
        parameter.requires_grad_(trains)


def _take_groups(layer: LocalLayer, groups: Sequence[Mapping[str, Any]]) -> None:
    for group, options in zip(layer.optimizer.param_groups, groups, strict=True):
        for name, value in options.items():
            if name in OF_A_DEVICE:
                continue
            own = group.get(name)
            if isinstance(own, torch.Tensor):  # a CUDA graph reads it there
                own.fill_(float(value))
            else:
                group[name] = value.item() if isinstance(value, torch.Tensor) and value.dim() == 0 else value


def load_decoder(layer: LocalLayer, state: Mapping[str, torch.Tensor]) -> None:
    """Take over what `decoder_state` returned on the layer's own rank."""
    own = dict(_named_state(layer))
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def release(stack: ALStack, chain: Chain) -> None:
    """Give back the memory of the layers that are another rank's: they become descriptions, on the device "meta".

    Rank 0 keeps what decodes predictions, which is small and which it gets anew before it predicts.
    """
    for index, (_, layer) in enumerate(stack.items()):
        if index in chain.own:
            continue
        kept = {id(one) for _, one in decoder_state(layer)} if chain.leads else set()
        layer._decodes_on = layer.device
        layer.discard()
        layer.optimizer.state.clear()
        _exchange(layer, lambda one: one.to("meta"), kept)


def has_values(layer: LocalLayer) -> bool:
    """Tell whether no parameter or buffer of a layer is a mere description, on the device "meta"."""
    return not any(one.is_meta for _, one in _named_state(layer))


def give_memory(name: str, layer: LocalLayer) -> None:
    """Give a layer without values memory where it has been assigned to; rank 0 sends the values.

    Raises ValueError for a tensor on "meta" that rank 0 does not send.
    """
    place = layer._assigned
    device = torch.device("cpu") if place is None or place.type == "cpu" else place
    for path, module in layer.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                where = f"{path}.{key}".lstrip(".")
                raise ValueError(
                    f"layer {name!r}: {where} is on the device meta, but neither a parameter nor a buffer, so rank 0 "
                    f'does not send its values; use register_buffer("{key}", ..., persistent=False)'
                )
    layer.optimizer.state.clear()
    _exchange(layer, lambda one: torch.empty_like(one, device=device) if one.is_meta else one.to(device))


def decoder_state(layer: LocalLayer) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters and buffers that `decode` needs, by their names in the layer."""
    if type(layer).decode is LocalLayer.decode:  # the code stays as it is
        return []
    modules = layer.parts()["decode"] or [layer]  # a layer that does not say counts as a whole
    needed = {id(one) for module in modules for one in (*module.parameters(), *module.buffers())}
    return [(name, one) for name, one in _named_state(layer) if id(one) in needed]


def _named_state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from _named_buffers(module)


def _named_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_buffers(remove_duplicate=False)


def _exchange(layer: LocalLayer, new: Callable[[Tensor], Tensor], kept: Set[int] = frozenset()) -> None:
    """Put `new` of every parameter and buffer in its place, but for those whose ids are in `kept`."""
    twins: dict[int, Tensor] = {}
    for module in layer.modules():
        for name, one in [*module._parameters.items(), *module._buffers.items()]:
            if one is None or id(one) in kept:
                continue
            if id(one) not in twins:  # a weight under two names stays one weight
                twin = new(one.detach())
                twins[id(one)] = nn.Parameter(twin, one.requires_grad) if isinstance(one, nn.Parameter) else twin
            setattr(module, name, twins[id(one)])  # an nn.LSTM has a list of its weights besides
    for optimizer in optimizers(layer):
        for group in optimizer.param_groups:
            group["params"][:] = [twins.get(id(one), one) for one in group["params"]]
