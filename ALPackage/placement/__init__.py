"""Where layers go: device lists, what layers cost, the cut that balances them, and what other machines would give."""

from .cost import LayerCost, measure
from .devices import (
    PlacementError,
    al_layers,
    available_devices,
    candidates,
    capacities,
    resolve,
    set_device,
    stage_sizes,
)
from .partition import partition
from .plan import Plan, ceiling_of, plan
from .simulate import simulate

__all__ = [
    "LayerCost",
    "PlacementError",
    "Plan",
    "al_layers",
    "available_devices",
    "candidates",
    "capacities",
    "ceiling_of",
    "measure",
    "partition",
    "plan",
    "resolve",
    "set_device",
    "simulate",
    "stage_sizes",
]
