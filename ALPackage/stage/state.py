"""All that a step of some layers changes, and all that it is computed with: to take it back, or to notice a change."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from ..layer import LocalLayer
from ..randomness import Dropout

Layers = Sequence[tuple[str, LocalLayer]]


def copy_state(layers: Layers) -> dict[str, Tensor]:
    """Return copies of what a step changes, by name: parameters, buffers and the optimizers' moments."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(layers)}


def restore_state(layers: Layers, before: dict[str, Tensor]) -> None:
    """Write the state back in place; a moment that did not exist becomes zero, which is how Adam's start."""
    with torch.no_grad():
        for name, tensor in _tensors(layers):
            if name in before:
                tensor.copy_(before[name])
            else:
                tensor.zero_()


def fingerprint(layers: Layers) -> Hashable:
    """Return what must not change for recorded work to stay right: where every tensor lies, settings, modes."""
    found: list[Hashable] = [tensor.data_ptr() for _, tensor in _tensors(layers)]
    for _, layer in layers:
        found += [parameter.requires_grad for parameter in layer.parameters()]
        for module in layer.modules():
            found += [module.training, module.p if isinstance(module, Dropout) else None]
        for group in layer.optimizer.param_groups:
            options = sorted((key, value) for key, value in group.items() if key not in ("params", "lr"))
            found.append(str(options))
            found.append(group["lr"].data_ptr() if isinstance(group["lr"], Tensor) else group["lr"])
    return tuple(found)


def hooked(layer: LocalLayer) -> bool:
    """Tell whether anything of the user's is called during the layer's step: a hook of a module or the optimizer."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_modules = any(getattr(module, kind, None) for module in layer.modules() for kind in kinds)
    of_optimizer = any(
        getattr(layer.optimizer, kind, None) for kind in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    )
    of_parameters = any(
        getattr(parameter, kind, None)
        for parameter in layer.parameters()
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")
    )
    return of_modules or of_optimizer or of_parameters


def _tensors(layers: Layers) -> Iterator[tuple[str, Tensor]]:
    for name, layer in layers:
        for key, value in (*layer.named_parameters(), *layer.named_buffers()):
            yield f"{name} {key}", value
        for number, state in enumerate(layer.optimizer.state.values()):
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{name} {number} {key}", value
