"""Associated Learning: layers with local losses, and the schedules that train them in a pipeline."""

import sys

from . import _moved
from .base import AE, AL, ENC
from .convert import to_al, to_bp
from .devices import set_device
from .early_exit import EarlyExit, Exits
from .errors import PlacementError, RankError, StageError
from .layer import LocalLayer
from .nan_guard import Guard
from .randomness import replace_dropout
from .schedules.by_name import SCHEDULES, make_schedule
from .schedules.schedule import Schedule
from .stack import ALStack
from .stage.snapshot import Snapshot

__version__ = "0.2.0.dev0"  # pyproject.toml reads it

__all__ = [
    "AE",
    "AL",
    "ENC",
    "SCHEDULES",
    "ALStack",
    "EarlyExit",
    "Exits",
    "Guard",
    "LocalLayer",
    "PlacementError",
    "RankError",
    "Schedule",
    "Snapshot",
    "StageError",
    "__version__",
    "make_schedule",
    "replace_dropout",
    "set_device",
    "to_al",
    "to_bp",
]

_moved.register(sys.modules[__name__])
