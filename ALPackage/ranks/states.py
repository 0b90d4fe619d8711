"""What a rank keeps of the layers that are another's, and how states get from one rank to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..layer import LocalLayer
from ..stack import ALStack
from .chain import Chain

#: Entries of a parameter group that belong to where the layer is, and to this process.
OF_A_DEVICE = ("params", "capturable", "fused", "foreach")


def states_elsewhere(stack: ALStack, chain: Chain) -> dict[str, Any]:
    """Return the state of the layers that another rank has, as `load_layer` takes it, by their names."""
    alone = len(chain.group) == 1
    others = [pair for index, pair in enumerate(stack.items()) if not (alone and index in chain.own)]
    return {name: {"layer": layer.state_dict(), "optimizer": layer.optimizer.state_dict()} for name, layer in others}


def load_layer(layer: LocalLayer, state: Mapping[str, Any]) -> None:
    """Load a layer's weights, buffers and moments; without "param_groups" the optimizer keeps its options."""
    layer.load_state_dict(state["layer"])
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
        _release(layer, kept)


def decoder_state(layer: LocalLayer) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters and buffers that `decode` needs, by their names in the layer."""
    if type(layer).decode is LocalLayer.decode:  # the code stays as it is
        return []
    modules = layer.parts()["decode"] or [layer]  # a layer that does not say counts as a whole
    needed = {id(one) for module in modules for one in (*module.parameters(), *module.buffers())}
    return [(name, one) for name, one in _named_state(layer) if id(one) in needed]


def _named_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _release(layer: LocalLayer, kept: set[int]) -> None:
    layer._decodes_on = layer.device
    layer.discard()
    layer.optimizer.state.clear()
    twins: dict[int, torch.Tensor] = {}
    for module in layer.modules():
        for held in (module._parameters, module._buffers):
            for name, one in held.items():
                if one is None or id(one) in kept:
                    continue
                if id(one) not in twins:  # a weight under two names stays one weight
                    empty = one.detach().to("meta")
                    whole = nn.Parameter(empty, one.requires_grad) if isinstance(one, nn.Parameter) else empty
                    twins[id(one)] = whole
                held[name] = twins[id(one)]  # type: ignore[assignment]
    for group in layer.optimizer.param_groups:
        group["params"] = [twins.get(id(one), one) for one in group["params"]]
