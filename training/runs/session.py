"""What is alive while a method runs, in contrast to its `RunSpec`, which could be written down."""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoints.store import Store
from ..report.gallery import Gallery
from ..report.run_log import RunLog
from ..report.trackers import Trackers
from ..weights.keeper import Keeper
from .progress import Progress
from .ranks import Ranks
from .shutdown import GracefulShutdown
from .tasks import LoadedTask


@dataclass(frozen=True)
class Session:
    """The data, the files and the signals of a command, for one of its methods."""

    task: LoadedTask
    store: Store
    keeper: Keeper
    methods_of_run: list[str]
    """The methods whose checkpoints belong to the same run as this one's."""
    shutdown: GracefulShutdown
    logs: list[RunLog]
    """Of the command's methods, in order; a method adds its own before it trains, so that an interruption keeps it."""
    gallery: Gallery
    trackers: Trackers
    progress: Progress
    ranks: Ranks | None = None
    """The processes of the command, where there are several."""
