"""The continuous pipeline: a persistent worker per stage and bounded channels between them; no barrier anywhere."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..devices import stage_sizes
from ..errors import StageError
from ..layer import LocalLayer
from ..stack import ALStack
from ..stage.batch import Batch
from ..stage.channel import Closed
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from ..stage.transfer import entry_event, intake_for, join_streams, lend
from ..stage.worker import Line, Worker
from .schedule import Schedule

#: Batches that may wait between two stages: enough to absorb jitter, few enough to keep memory flat.
QUEUE_DEPTH = 2
#: Seconds that closing gives the workers, together, to end the step that each is in.
JOIN_DEADLINE = 10.0
#: The same after a failure, which the caller shall hear of soon; a longer step ends on its own afterwards.
FAILURE_DEADLINE = 1.5


class Continuous(Schedule):
    """A persistent worker per stage and bounded channels between them: no barrier, no bubble but fill and drain.

    `stages`: the number of layers of each stage, first to last; by default neighbors on one device are one stage, and
    every layer whose device is just "cpu" is one of its own, which the operating system balances over the cores.
    `depth`: batches that may wait between two stages. The caller's thread feeds the first stage.
    """

    name = "continuous"

    def __init__(
        self, stack: ALStack, *, stages: Sequence[int] | None = None, depth: int = QUEUE_DEPTH, **options: Any
    ) -> None:
        super().__init__(stack, **options)
        if depth < 1:
            raise ValueError(f"depth: got {depth}; expected at least 1 batch between two stages")
        self._devices = stack.devices
        layers = _divide(stack, stages)
        self._told: str | None = None
        self._unfinished = self._interrupted = False
        self._captured = self._cuda_graph == "off" or all(device.type != "cuda" for device in self._devices)
        self._line = Line(len(layers), depth)
        self._workers = [
            Worker(number, stage, self._line, self._step, intake_for(stage[0][1].device), self.threads)
            for number, stage in enumerate(layers)
        ]
        # Who forgets to close a schedule still gets the threads ended, when the schedule is collected.
        weakref.finalize(self, self._line.close)
        try:
            for worker in self._workers:
                worker.thread.start()
        except BaseException:
            self._line.close()
            raise

    def usage(self) -> list[Usage]:
        """Return how each stage's worker has spent its time in training since the schedule was made."""
        return [worker.usage for worker in self._workers]

    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        if self.stack.devices != self._devices:
            raise RuntimeError("the layers have moved since this schedule was made; place them first, then make it")
        if self._unfinished:  # its batches would be taken for this run's
            self._line.close()
        self._unfinished = True
        inlet = self._line.channels[0]
        under_way = 0
        self._line.began = time.perf_counter()
        if [worker for worker in self._workers if worker.drop_stale_graph()]:
            self._captured = False
        join_streams([worker.intake for worker in self._workers], entering=True)
        try:
            for item in items:
                if isinstance(item, Batch):
                    if item.train and not self._captured:
                        self._capture(item)
                    item.event = entry_event((item.x, item.y))
                inlet.put(item)
                under_way += 1
                while self._line.channels[-1].ready():
                    under_way -= 1
                    yield self._done()
            while under_way:
                under_way -= 1
                yield self._done()
            self._drain()
            join_streams([worker.intake for worker in self._workers], entering=False)
        except Closed:
            self._raise_failure()
            raise RuntimeError("the continuous schedule was closed; make a new one to train on") from None
        except (StageError, GeneratorExit) as end:
            # The loader failed, or the caller left its loop: every layer still gets every batch that was sent.
            # Python drops what an abandoned iterator raises, so a failure, or Ctrl-C, is kept for `close` then.
            left = isinstance(end, GeneratorExit)
            try:
                with suppress(Closed):
                    self._drain()
            except BaseException as error:
                self._interrupted = left and isinstance(error, KeyboardInterrupt)
                self._line.close()
                raise
            join_streams([worker.intake for worker in self._workers], entering=False)
            if not left:
                self._raise_failure()
            raise

    def _capture(self, batch: Batch) -> None:
        """Let every GPU stage try to put its step into a CUDA graph, one after another, while all workers wait."""
        self._captured = True
        # The batch was made on the caller's stream after the run had begun.
        join_streams([worker.intake for worker in self._workers], entering=True)
        example = Batch(batch.number, batch.x, batch.y, batch.lr)
        for worker in self._workers:
            try:
                example = worker.capture(example, force=self._cuda_graph == "on")
            except StageError:
                raise
            except Exception as error:
                raise StageError(worker.layers[0][0], batch.number, error) from error

    def _done(self) -> Batch | Snapshot:
        """Return what has left the pipeline next, fit for use on the caller's thread."""
        item = self._line.channels[-1].get()
        assert item is not None  # the marker of the end comes after everything
        return lend(item) if isinstance(item, Batch) else item

    def _drain(self) -> None:
        """Wait until every worker has done with the batches that are under way. Raises Closed."""
        self._line.channels[0].put(None)
        while self._line.channels[-1].get() is not None:
            pass
        self._unfinished = False

    def _raise_failure(self) -> None:
        """Raise the failure of a worker, if there is one. Only its words are kept: its traceback holds tensors."""
        failure, self._line.failure = self._line.failure, None
        if failure is not None:
            self._told = str(failure)
            try:
                raise failure from failure.__cause__
            finally:
                del failure  # its own traceback holds this frame
        if self._told is not None:
            raise RuntimeError(f"this schedule ended when {self._told}; make a new one to train on")

    def close(self) -> None:
        """End the workers; a batch under way in a layer is finished there and goes no further.

        Raises StageError for a failure that came after the caller had left its loop, KeyboardInterrupt for Ctrl-C
        meanwhile, and RuntimeError where a step lasts longer than JOIN_DEADLINE.
        """
        if not self._join(JOIN_DEADLINE):
            raise RuntimeError(f"a worker did not end within {JOIN_DEADLINE:.0f} s: {', '.join(self._alive())}")
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        if self._told is None:
            self._raise_failure()

    def _abort(self) -> None:
        self._join(FAILURE_DEADLINE)

    def _join(self, seconds: float) -> bool:
        """Close the line, wait for the workers to end, and tell whether all have."""
        try:
            self._line.close()
            deadline = time.monotonic() + seconds
            return all(worker.thread.ended(max(0.0, deadline - time.monotonic())) for worker in self._workers)
        except BaseException:  # Ctrl-C here must not leave a worker waiting
            self._line.close()
            raise

    def _alive(self) -> list[str]:
        return [worker.thread.name for worker in self._workers if not worker.thread.ended(0.0)]


def _divide(stack: ALStack, sizes: Sequence[int] | None) -> list[list[tuple[str, LocalLayer]]]:
    """Divide the layers into stages of the given sizes. Raises ValueError where they do not fit the stack."""
    layers = list(stack.items())
    sizes = stage_sizes(stack.devices) if sizes is None else list(sizes)
    if not all(size >= 1 for size in sizes) or sum(sizes) != len(layers):
        raise ValueError(
            f"stages: got {sizes}, {sum(sizes)} layers in all; expected at least 1 per stage and {len(layers)} in all"
        )
    stages = []
    for size in sizes:
        stage, layers = layers[:size], layers[size:]
        if len({layer.device for _, layer in stage}) > 1:
            raise ValueError(
                f"stages: {', '.join(name for name, _ in stage)} are one stage but not on one device; "
                "place them together or divide the stage"
            )
        stages.append(stage)
    return stages
