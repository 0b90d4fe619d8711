"""The schedules by name."""

from __future__ import annotations

from typing import Any

from ..stack import ALStack
from .al_fm import ALFM
from .continuous import Continuous
from .schedule import Schedule
from .sequential import Sequential

SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Sequential, ALFM, Continuous)}


def make_schedule(name: str, stack: ALStack, **options: Any) -> Schedule:
    """Return the schedule of that name for `stack`; options as for its class. Raises ValueError."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule: got {name!r}; expected one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](stack, **options)
