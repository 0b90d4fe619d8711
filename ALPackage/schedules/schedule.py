"""What the schedules have in common: how they are called, numbered, timed and ended."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType
from typing import Any, ClassVar

import torch
from torch import nn

from ..base import AL, refuse_common_parameters
from ..busy import busy, refuse_if_busy
from ..errors import StageError, UnfitLayersError
from ..layer import LearningRate
from ..optimized import OwnSettings, refuse_untrained
from ..preflight import check_layers
from ..randomness import Dropout
from ..stack import ALStack
from ..stage.batch import Batch, InPlaceGuard, LocalLosses, Marker, MemoryCheck, PredictBatch, TrainBatch, as_pair
from ..stage.caller import modes
from ..stage.cuda_graph import make_capturable
from ..stage.optimizer_watch import OptimizerWatch
from ..stage.snapshot import Snapshot
from ..stage.step import Step
from ..stage.threads import IntraOpThreads, worker_threads
from ..stage.trace import Trace, Usage

#: Seconds to wait for all workers together before a failure is raised; slower ones finish in the background.
FAILURE_DEADLINE = 1.5


class Schedule(ABC):
    """Trains a stack on batches. Use it as a context manager, or `close` it, to end its threads.

    Args:
        stack: The layers to train, on their devices.
        threads: Intra-op threads of every worker, the same for every schedule because the order of a sum depends on
            it; by default OMP_NUM_THREADS, or 1.
        seed: Root of the layers' random streams.
        trace: Records what each layer did when.
        cuda_graph: Whether the continuous schedule may run a GPU layer's step as a CUDA graph: "auto" where that has
            been seen to be the same and faster, "on" where it is the same, "off".

    Raises:
        ValueError: If an option has a value that it cannot have.

    Example:
        >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)))
        >>> batches = [(torch.randn(5, 4), torch.randn(5, 3)) for _ in range(6)]
        >>> with make_schedule("sequential", ALStack([layer]), threads=1) as schedule:
        ...     schedule.prepare(batches[0])
        ...     trained = sum(1 for losses in schedule.run(batches, lr=lambda number: 1e-3 / (1 + number)))
        ...     predictions = list(schedule.predict([x for x, _ in batches]))
        >>> trained, predictions[0][-1].shape
        (6, torch.Size([5, 3]))
    """

    name: ClassVar[str]
    #: Whether two layers may be at work at the same time.
    concurrent: ClassVar[bool] = True
    #: Whether no layer is at work while the caller holds a result of `run`.
    alone: ClassVar[bool] = True
    #: Whether the schedule has threads from the time it is made, which a process that is forked off does not get.
    persistent: ClassVar[bool] = False

    def __init__(
        self,
        stack: ALStack,
        *,
        threads: int | None = None,
        seed: int = 0,
        trace: Trace | None = None,
        cuda_graph: str = "auto",
    ) -> None:
        if not isinstance(stack, ALStack):
            raise TypeError(f"{self.name} schedule: got an object of type {type(stack).__name__}; give an ALStack")
        self.stack = stack
        self._made_with = list(stack.items())
        self.threads = worker_threads() if threads is None else threads
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ValueError(f"threads: got {threads!r}; expected a whole number of at least 1")
        if cuda_graph not in ("auto", "on", "off"):
            raise ValueError(f"cuda_graph: got {cuda_graph!r}; expected auto, on or off")
        self._cuda_graph = cuda_graph
        if cuda_graph != "off":
            for layer in stack:
                if layer.device.type == "cuda":
                    make_capturable(layer)
        self._step = Step(seed, trace)
        self._process = os.getpid()
        self._checked = False
        self._own_settings: OwnSettings = {}
        self._memory = MemoryCheck(0)
        self._unreported: RuntimeError | None = None
        self._running = False
        self._aborted = False
        self._number = 0  # of the batch that was last asked for

    def prepare(self, batch: tuple[Any, Any]) -> None:
        """Do what is done once before training, so that it does not count as training time; no weight changes.

        The layers are checked on copies (see `preflight`), and on GPUs the steps are captured as CUDA graphs. `batch`:
        one (x, y) as the loader yields it. `run` does the same with its first batch unless it has been done; a second
        call does nothing. Raises UnfitLayersError, a ValueError, for a layer that this schedule cannot train,
        StageError for one that fails, and RuntimeError while a run is open.
        """
        x, y = as_pair(batch)
        with self._opened(to_train="prepare"):
            if (failure := self._check_layers(batch)) is not None:
                raise failure from failure.__cause__
            self._prepare(TrainBatch(0, x, self.stack.target(y)))

    def run(
        self,
        batches: Iterable[tuple[Any, Any] | Snapshot],
        *,
        lr: Callable[[int], LearningRate] | None = None,
        first: int = 0,
        layers: int | None = None,
    ) -> Iterator[LocalLosses]:
        """Train on every (x, y) of `batches` and yield each batch's losses, in order, when its last layer is done.

        Nothing is trained before the result is iterated over.

        A batch's losses are one dict per layer, from the loss's name to a 0-d tensor. Batches are numbered from
        `first`; `lr` gives the learning rate for a number, of which a layer takes `lr_share` times. `layers`: train so
        many, the first ones, and leave the others as they are. The caller's autocast holds in every layer. Leaving the
        loop early, like a failing loader, lets the batches under way finish first. A `Snapshot` among the batches is no
        batch: it takes the layers' state, and nothing waits for it.

        Raises StageError for a failure in a layer or in what makes the batches; ValueError as `prepare` does, for
        `layers` outside 1 .. number of layers, and for a parameter that is to train but that no optimizer of its layer
        holds; RuntimeError while another run is open, and where an optimizer's settings change while this one is (give
        the rates with `lr`, or change them between runs).
        """
        self.stack.refuse_depth("run: got layers", layers)
        with self._opened(to_train="run") as threads:
            watch = OptimizerWatch(self.stack, alone=self.alone, own=self._own_settings)
            self._step.watch = watch
            with busy(() if self.alone else (self.stack, *self.stack)):
                for item in self._run(self._numbered(batches, lr, first, layers)):
                    if isinstance(item, TrainBatch):
                        if self.alone:
                            watch.hand_over()
                        threads.restore()
                        try:
                            yield item.losses
                        except GeneratorExit:
                            self._note_change(watch)
                            raise
                        finally:
                            threads.set()
                    elif isinstance(item, Snapshot) and item.ready is not None:
                        item.ready(item)
                    watch.check()
                watch.finish()

    def predict(self, inputs: Iterable[Any], *, layers: int | None = None) -> Iterator[list[Any]]:
        """Yield the predictions of depths 1, 2, .., all layers or `layers`, for every x of `inputs`, in order.

        Without gradients; whether the layers are in training or in evaluation mode is the caller's choice. The
        result is that of `ALStack.inference_by_depth`, bit for bit. Raises as `run` does, and RuntimeError for dropout
        in training mode, whose masks would depend on who draws first.
        """
        self.stack.refuse_depth("predict: got layers", layers)
        with self._opened() as threads:
            for name, module in self.stack.named_modules():
                if isinstance(module, Dropout) and module.training and module.p > 0.0:
                    raise RuntimeError(f"predict: {name} is in training mode and drops at random; call eval() first")
            for batch in self._run(self._to_predict(inputs, layers)):
                if isinstance(batch, PredictBatch):
                    predictions = self._step.decode(list(self.stack.items()), batch)
                    threads.restore()
                    try:
                        yield predictions
                    finally:
                        threads.set()

    def usage(self) -> list[Usage]:
        """Return how each worker has spent its time in training since the schedule was made."""
        return []

    @abstractmethod
    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot | Marker]:
        """Take the numbered batches, and the snapshots between them, through the layers and yield them in order."""

    def _prepare(self, example: TrainBatch) -> None:  # noqa: B027 (most schedules have nothing to prepare)
        """Do what this schedule does once before training, except for the checks of the layers."""

    def _check_layers(self, batch: tuple[Any, Any]) -> StageError | None:
        """Check the layers once; return the failure that ended the check early, after which it is due again."""
        if self._checked:
            return None
        context = self._step.autocast.context
        failed = check_layers(
            self.stack,
            batch,
            concurrent=self.concurrent,
            seed=self._step.seed,
            context=context,
            own_settings=self._own_settings,
        )
        if failed is not None:
            return StageError(failed[0], 0, failed[1])
        self._checked = True
        return None

    def _take_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Take the state of every layer, while no layer is at work, and return the snapshot."""
        for name, layer in self.stack.items():
            try:
                snapshot.take(name, layer)
            except Exception as error:
                raise StageError(name, snapshot.number, error) from error
        return snapshot

    def _refuse_other_layers(self) -> None:
        """Raise RuntimeError if the stack has other layers than when the schedule was made, or has them elsewhere."""
        if list(self.stack.items()) != self._made_with:
            raise RuntimeError("the stack has other layers than when this schedule was made; make a new one")

    def _refuse_wrong_layers(self) -> None:
        """Raise UnfitLayersError for what was done to the layers after the stack was made and fails silently."""
        self.stack.refuse_shared_state()
        for name, layer in self.stack.items():
            if isinstance(layer, AL):
                refuse_common_parameters(layer.enc, layer.ae)
            refuse_untrained(name, layer)
        target = self.stack.target
        for path, parameter in target.named_parameters() if isinstance(target, nn.Module) else ():
            if parameter.requires_grad:
                raise UnfitLayersError(
                    f"the stack's target: {path} would never train, because no layer has it; call "
                    "requires_grad_(False) on the target, or make it part of the first layer's g"
                )

    def _note_change(self, watch: OptimizerWatch) -> None:
        """Keep for later that the caller has changed an optimizer: what an abandoned iterator raises is dropped."""
        try:
            watch.check()
        except RuntimeError as error:
            self._unreported = error

    def _report(self) -> None:
        """Raise what could not be raised in time."""
        error, self._unreported = self._unreported, None
        if error is not None:
            raise error

    def close(self) -> None:
        """End the schedule's threads, if it has any; safe to call twice.

        Raises what could not be raised before, because the caller had left its loop.
        """
        self._report()

    def _abort(self) -> None:
        """After a failure: end the threads without raising, and leave no half-done batch in a layer."""
        for layer in self.stack:
            layer.discard()

    def _numbered(
        self,
        batches: Iterable[tuple[Any, Any] | Snapshot],
        lr: Callable[[int], LearningRate] | None,
        first: int,
        layers: int | None,
    ) -> Iterator[Batch | Snapshot]:
        """Turn what the loader yields into numbered batches with targets and learning rates."""
        number = first - 1
        for item in self._drawn(batches, first):
            if isinstance(item, Snapshot):
                item.number = number + 1
                yield item
                continue
            number += 1
            source = "lr"
            try:
                rate = lr(number) if lr is not None else None
                source = "loader"
                x, labels = as_pair(item)
                source = "target"
                y = self.stack.target(labels)
            except (Exception, GeneratorExit) as error:
                raise StageError(source, number, error) from error
            self._check_layers((x, labels))  # a layer that fails in it fails below too, and is reported there
            batch = TrainBatch(number, x, y, rate)
            batch.guard = InPlaceGuard("loader", (x, y))
            batch.layers = layers
            # What makes the batches may have changed a rate, too. Elsewhere that is still to be seen afterwards.
            if self.alone and self._step.watch is not None:
                self._step.watch.check()
            yield batch

    def _to_predict(self, inputs: Iterable[Any], layers: int | None) -> Iterator[Batch | Snapshot]:
        for number, x in enumerate(self._drawn(inputs, 0)):
            batch = PredictBatch(number, x)
            batch.guard = InPlaceGuard("loader", x)
            batch.layers = layers
            yield batch

    def _drawn(self, iterable: Iterable[Any], first: int) -> Iterator[Any]:
        """Iterate; whatever fails becomes a StageError of the loader with the number of the batch that is missing."""
        self._number = first
        items: Iterator[Any] | None = None
        while True:
            try:
                items = iter(iterable) if items is None else items
                item = next(items)
            except StopIteration:
                return
            except (Exception, GeneratorExit) as error:
                raise StageError("loader", self._number, error) from error
            if not (self.alone or self._memory.passed(item)):
                reused = RuntimeError(
                    "it changed the memory of a batch that it had handed on, perhaps an array behind torch.from_numpy, "
                    "while layers may still read it; hand on a copy every time (for example with .clone())"
                )
                raise StageError("loader", self._number, reused)
            self._number += not isinstance(item, Snapshot)
            yield item

    @contextmanager
    def _opened(self, to_train: str | None = None) -> Iterator[IntraOpThreads]:
        """Refuse a second run at the same time, and leave the layers fit for training whatever happens.

        `to_train`: the call that does it for training, for which the layers must be fit. What is refused here leaves
        the schedule as it was.
        """
        self._refuse_other_process()
        if self._running:
            raise RuntimeError("this schedule has an open run; finish it, or close its iterator, before the next")
        refuse_if_busy(self.stack, f"{self.name} schedule")
        self._report()
        self._refuse_other_layers()
        if self.concurrent and (active := modes()):
            raise RuntimeError(
                f"{active[0]} of the calling thread does not reach layers that work on other threads; leave it before "
                'the run, or use schedule="sequential"'
            )
        if to_train is not None:
            if torch.is_inference_mode_enabled():
                raise RuntimeError(f"{to_train}: nothing can be trained inside torch.inference_mode(); leave it first")
            self._refuse_wrong_layers()
        try:
            self._running, self._aborted = True, False
            self._step.begin(threads=self.concurrent)
            with IntraOpThreads(self.threads) as threads:
                yield threads
        except GeneratorExit:
            raise
        except BaseException as error:
            self._abort()
            self._aborted = True  # only now: if Ctrl-C strikes before, the end of the `with` block does it again
            cause = error.__cause__ if isinstance(error, StageError) else error
            if isinstance(cause, RuntimeError) and _of_a_lost_process(cause):
                raise StageError("loader", self._number, cause) from cause
            raise
        finally:
            self._running = False
            self._step.end()
            self._memory.end()

    def _refuse_other_process(self) -> None:
        """Raise RuntimeError in a process that was forked off, where nobody would ever take a batch."""
        if self.persistent and os.getpid() != self._process:
            raise RuntimeError(
                f"this {self.name} schedule was made in another process, and its threads are there; make the schedule "
                "in the process that uses it"
            )

    def __getstate__(self) -> Any:
        """Refuse to be copied or pickled: threads and a run under way belong to one object in one process."""
        raise TypeError(f"a {self.name} schedule cannot be copied or pickled; copy its stack, and make a new schedule")

    def __enter__(self) -> Schedule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An exception that is on its way matters more than what `close` could raise.
        if error is None:
            self.close()
        elif not self._aborted:  # else the workers have had their time already
            self._abort()


def _of_a_lost_process(error: RuntimeError) -> bool:
    """Return whether torch's signal handler raised this because a process of the loader died."""
    return any(
        frame.f_globals.get("__name__") == "torch.utils.data._utils.signal_handling"
        for frame, _ in walk_tb(error.__traceback__)
    )
