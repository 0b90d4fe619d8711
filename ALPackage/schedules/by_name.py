"""The schedules by name."""

from __future__ import annotations

from typing import Any

from ..stack import ALStack
from .al_fm import ALFM
from .continuous import Continuous
from .distributed import Distributed
from .schedule import Schedule
from .sequential import Sequential

SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Sequential, ALFM, Continuous, Distributed)}


def make_schedule(name: str, stack: ALStack, **options: Any) -> Schedule:
    """Return the schedule of that name for `stack`.

    Args:
        name: "sequential", "al-fm", "continuous", or "distributed" in the processes of `torch.distributed`; all give
            the same numbers, bit for bit.
        stack: The layers, on their devices. Place them first (`set_device`).
        options: `threads`, `seed`, `trace` and `cuda_graph`, as for `Schedule`; "continuous" also takes `workers`,
            `depth` and `streams_per_device`, as for `Continuous`, and "distributed" these and more, as for
            `Distributed`.

    Returns:
        The schedule, which is best used as a context manager, because it may have threads to end.

    Raises:
        ValueError: If there is no such schedule, or an option cannot be used.

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        >>> with make_schedule("continuous", ALStack([layer]), threads=1, seed=0) as schedule:
        ...     losses = list(schedule.run([(torch.randn(5, 4), torch.randn(5, 3))]))
        >>> [sorted(of_layer) for of_layer in losses[0]]
        [['ae', 'assoc']]
    """
    if not isinstance(name, str):
        raise TypeError(f"make_schedule: got an object of type {type(name).__name__} as the name; it comes first")
    if name not in SCHEDULES:
        raise ValueError(f"schedule: got {name!r}; expected one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](stack, **options)
