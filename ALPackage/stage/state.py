"""All that a step of some layers changes, and all that it is computed with: to undo it, or to notice a change."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..layer import LocalLayer

Layers = Sequence[tuple[str, LocalLayer]]

#: Attributes of these types are settings by their value.
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


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
    """Return what must not change for recorded work to stay right: where every tensor lies, and all settings.

    Settings are the plain attributes (numbers, strings, tuples of these, ..) and the functions of every module and of
    the objects that it holds, such as a criterion. A module that counts something in Python therefore never looks the
    same twice.
    """
    facts: list[Hashable] = [tensor.data_ptr() for _, tensor in _tensors(layers)]
    for _, layer in layers:
        facts += [parameter.requires_grad for parameter in layer.parameters()]
        for path, module in layer.named_modules():
            facts += [path, module, *_settings(module)]
        for group in layer.optimizer.param_groups:
            options = sorted((key, value) for key, value in group.items() if key not in ("params", "lr"))
            facts.append(str(options))
            # A rate that is a tensor may change in value: recorded work reads it anew.
            facts.append(group["lr"].data_ptr() if isinstance(group["lr"], Tensor) else group["lr"])
    return tuple(facts)


def hooked(layer: LocalLayer) -> bool:
    """Return whether the layer's step calls anything of the user's: a hook of a module, parameter or optimizer."""
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


def _settings(holder: object) -> Iterator[Hashable]:
    """Yield the settings among the attributes of a module, or of an object that a module holds."""
    for name, value in getattr(holder, "__dict__", {}).items():
        if _plain(value):
            yield name, value if not isinstance(value, list) else tuple(value)
        elif isinstance(holder, nn.Module) and not isinstance(value, (Tensor, Optimizer, torch.Generator, dict, list)):
            # Kept, not only its id, which Python may give to another object once this one is gone.
            yield name, _Same(value)
            yield from _settings(value)


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):  # an empty list is often one that fills up with something else
        return len(value) > 0 and all(isinstance(item, PLAIN) for item in value)
    return isinstance(value, PLAIN)


class _Same:
    """Equal only where it holds the same object, whatever that object's own `==` says."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _tensors(layers: Layers) -> Iterator[tuple[str, Tensor]]:
    for name, layer in layers:
        for key, value in (*layer.named_parameters(), *layer.named_buffers()):
            yield f"{name} {key}", value
        for number, state in enumerate(layer.optimizer.state.values()):
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{name} {number} {key}", value
