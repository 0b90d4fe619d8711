"""Associated Learning: layers with local losses, and the schedules that train them in a pipeline."""

from .base import AE, AL, ENC
from .finite import Guard
from .pipeline import SCHEDULES, Schedule, Snapshot, StageError, make_schedule
from .placement import PlacementError, set_device
from .stack import ALStack

__all__ = [
    "AE",
    "AL",
    "ENC",
    "SCHEDULES",
    "ALStack",
    "Guard",
    "PlacementError",
    "Schedule",
    "Snapshot",
    "StageError",
    "make_schedule",
    "set_device",
]
