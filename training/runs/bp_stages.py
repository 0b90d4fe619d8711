"""Which stage of a pipeline every BP layer is in, by what the layers cost."""

from __future__ import annotations

import copy
import time
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ALPackage.nested import tensors, to_device
from ALPackage.placement.over_ranks import over_ranks
from models import BPModel, adamw

from ..config.bp_parallel import STAGES
from ..config.spec import RunSpec
from ..trainers.trainer import mixed_precision
from .placement import CPU, Placement
from .ranks import Ranks

#: How often a layer is run to measure it; the fastest counts.
RUNS = 3


def place_stages(model: BPModel, batch: tuple[Any, Tensor], spec: RunSpec, ranks: Ranks) -> Placement:
    """Return where the layers of a pipeline go: as the config says, or so that the slowest stage is fastest."""
    if spec.ranks is not None:
        stages = [stage for stage, (_, run) in enumerate(groupby(spec.ranks)) for _ in run]
    else:
        costs = layer_costs(model, batch, spec)
        stages = over_ranks(costs, [0] * len(costs), STAGES[spec.bp_parallel] * spec.world)
    own = [torch.device(name) for name in ranks.devices]
    where = [stage % spec.world for stage in stages]
    named = spec.devices or ("auto",) * len(stages)
    devices = [own[rank] if name == "auto" else torch.device(name) for rank, name in zip(where, named, strict=True)]
    return Placement(devices, None, tuple(where), stages=tuple(stages))


def layer_costs(model: BPModel, batch: tuple[Any, Tensor], spec: RunSpec) -> list[float]:
    """Return the seconds that each layer's step takes here on the CPU, as if all processes had machines like this one.

    The model is left as it is.
    """
    x = to_device(batch[0], CPU)
    costs = []
    with mixed_precision([CPU], spec.config.precision):
        for layer in model.layers.values():
            cost, x = _cost(layer, x)
            costs.append(cost)
    return costs


def _cost(layer: nn.Module, x: Any) -> tuple[float, Any]:
    """Return the seconds of a layer's step, and what it hands on."""
    copied = copy.deepcopy(layer).to(CPU).train()
    weights = list(copied.parameters())
    optimizer = adamw(weights, lr=0.0) if weights else None
    seconds = []
    for _ in range(RUNS):
        inputs = tree_map(_as_input, x)
        begun = time.perf_counter()
        out = copied(inputs)
        torch.autograd.backward(tensors(out)[0].float().sum())
        if optimizer is not None:
            optimizer.step()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), tree_map(lambda leaf: leaf.detach(), out)


def _as_input(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.is_floating_point())
