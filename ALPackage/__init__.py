"""Associated Learning: layers with local losses, and the schedules that train them in a pipeline."""

from .base import AE, AL, ENC
from .devices import set_device
from .errors import PlacementError, StageError
from .nan_guard import Guard
from .schedules.by_name import SCHEDULES, make_schedule
from .schedules.schedule import Schedule
from .stack import ALStack
from .stage.snapshot import Snapshot

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
