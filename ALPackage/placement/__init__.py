"""Where layers go: what they cost, the cut that balances them, and what other machines would give."""

from ..devices import available_devices, resolve, set_device, stage_sizes
from ..errors import PlacementError
from .cost import LayerCost, measure
from .partition import partition
from .plan import Plan, ceiling_of, plan
from .simulate import simulate

__all__ = [
    "LayerCost",
    "PlacementError",
    "Plan",
    "available_devices",
    "ceiling_of",
    "measure",
    "partition",
    "plan",
    "resolve",
    "set_device",
    "simulate",
    "stage_sizes",
]
