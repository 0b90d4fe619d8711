"""What the workers of one pipeline share: the channels between them, and the first failure."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import StageError
from .batch import Batch
from .channel import Channel, LocalChannel
from .snapshot import Snapshot

#: What passes from worker to worker: batches, the snapshots between them, and None at the end of a run.
Item = Batch | Snapshot | None


class PipelineLinks:
    """The channels of a pipeline: channel i leads into stage i, and the last one back to the caller."""

    def __init__(self, stages: int, depth: int) -> None:
        self.channels: list[Channel[Item]] = [LocalChannel(depth) for _ in range(stages)]
        # Unbounded, so that the last stage never waits for the caller; the first channel bounds what is under way.
        self.channels.append(LocalChannel())

    def close(self) -> None:
        """End every worker after the step that it is in."""
        for channel in self.channels:
            channel.close()


class FirstFailure:
    """The failure that is raised in the caller: the first one, because later ones are often only its consequences.

    `stop`: called with every failure, to wake and end everyone else.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self._error: StageError | None = None
        self._lock = threading.Lock()

    def report(self, error: StageError) -> None:
        """Keep `error` if it is the first one, and stop the pipeline."""
        with self._lock:
            if self._error is None:
                self._error = error
        self.stop()

    def pop(self) -> StageError | None:
        """Return the failure, if there is one, and forget it: its traceback holds tensors."""
        error, self._error = self._error, None
        return error
