"""What layers cost, which device each of them gets, and what to expect of any number of workers."""

from ..devices import available_devices, resolve, set_device
from ..errors import PlacementError
from .assignment import assign
from .cost import LayerCost, measure
from .partition import partition
from .plan import Plan
from .simulate import simulate

__all__ = [
    "LayerCost",
    "PlacementError",
    "Plan",
    "assign",
    "available_devices",
    "measure",
    "partition",
    "resolve",
    "set_device",
    "simulate",
]
