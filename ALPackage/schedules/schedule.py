"""What the schedules have in common: how they are called, numbered, timed and ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType
from typing import Any, ClassVar

from ..errors import StageError
from ..layer import LearningRate
from ..randomness import Dropout
from ..stack import ALStack
from ..stage.batch import Batch, LocalLosses
from ..stage.cuda_graph import make_capturable
from ..stage.snapshot import Snapshot
from ..stage.step import Step
from ..stage.threads import default_threads, intra_op_threads
from ..stage.trace import Trace, Usage


class Schedule(ABC):
    """Trains a stack on batches. Use it as a context manager, or `close` it, to end its threads.

    `threads`: intra-op threads of every worker, the same for every schedule because the order of a sum depends
    on it. `seed`: root of the layers' random streams. `trace`: records what each layer did when. `cuda_graph`: whether
    the continuous schedule may run a GPU stage's step as a CUDA graph: "auto" where that has been seen to be the same
    and faster, "on" where it is the same, "off". Raises ValueError.
    """

    name: ClassVar[str]

    def __init__(
        self,
        stack: ALStack,
        *,
        threads: int | None = None,
        seed: int = 0,
        trace: Trace | None = None,
        cuda_graph: str = "auto",
    ) -> None:
        self.stack = stack
        self.threads = default_threads(len(stack)) if threads is None else threads
        if self.threads < 1:
            raise ValueError(f"threads: got {threads}; expected at least 1")
        if cuda_graph not in ("auto", "on", "off"):
            raise ValueError(f"cuda_graph: got {cuda_graph!r}; expected auto, on or off")
        self._cuda_graph = cuda_graph
        if cuda_graph != "off":
            for layer in stack:
                if layer.device.type == "cuda":
                    make_capturable(layer)
        self._step = Step(seed, trace)
        self._running = False
        self._aborted = False
        self._number = 0  # of the batch that was last asked for

    def run(
        self,
        batches: Iterable[tuple[Any, Any] | Snapshot],
        *,
        lr: Callable[[int], LearningRate] | None = None,
        first: int = 0,
    ) -> Iterator[LocalLosses]:
        """Train on every (x, y) of `batches` and yield each batch's losses, in order, when its last layer is done.

        Nothing is trained before the result is iterated over.

        A batch's losses are one (associated, auto-encoder) pair of 0-d tensors per layer. Batches are numbered
        from `first`; `lr` gives the learning rate for a number. The caller's autocast holds in every layer. Raises
        StageError for a failure in a layer or in what makes the batches, and RuntimeError while another run is
        open. Leaving the loop early, like a failing loader, lets the batches under way finish first. A `Snapshot` among
        the batches is no batch: it takes the layers' state, and nothing waits for it.
        """
        with self._opened():
            for item in self._run(self._numbered(batches, lr, first)):
                if isinstance(item, Batch):
                    yield item.losses
                elif item.ready is not None:
                    item.ready(item)

    def predict(self, inputs: Iterable[Any]) -> Iterator[list[Any]]:
        """Yield the predictions of depths 1, 2, .., all layers for every x of `inputs`, in order.

        Without gradients; whether the layers are in training or in evaluation mode is the caller's choice. The
        result is that of `ALStack.inference_by_depth`, bit for bit. Raises as `run` does, and RuntimeError for dropout
        in training mode, whose masks would depend on who draws first.
        """
        with self._opened():
            for name, module in self.stack.named_modules():
                if isinstance(module, Dropout) and module.training and module.p > 0.0:
                    raise RuntimeError(f"predict: {name} is in training mode and drops at random; call eval() first")
            named = enumerate(self._drawn(inputs, 0))
            for batch in self._run(Batch(number, x, train=False).seal("loader") for number, x in named):
                if isinstance(batch, Batch):
                    yield self._step.decode(list(self.stack.items()), batch)

    def prepare(self, batch: tuple[Any, Any]) -> None:  # noqa: B027 (not every schedule has something to prepare)
        """Do everything that is done once before training, with `batch`, (x, y) as the loader yields it."""

    def usage(self) -> list[Usage]:
        """Return how each worker has spent its time in training since the schedule was made."""
        return []

    @abstractmethod
    def _run(self, items: Iterator[Batch | Snapshot]) -> Iterator[Batch | Snapshot]:
        """Take the numbered batches, and the snapshots between them, through the layers and yield them in order."""

    def _taken(self, snapshot: Snapshot) -> Snapshot:
        """Take the state of every layer, while no layer is at work, and return the snapshot."""
        for name, layer in self.stack.items():
            try:
                snapshot.take(name, layer)
            except Exception as error:
                raise StageError(name, snapshot.number, error) from error
        return snapshot

    def close(self) -> None:  # noqa: B027 (a schedule without threads has nothing to end)
        """End the schedule's threads, if it has any; safe to call twice."""

    def _abort(self) -> None:
        """After a failure: end the threads without raising, and leave no half-done batch in a layer."""
        for layer in self.stack:
            layer.discard()

    def _numbered(
        self, batches: Iterable[tuple[Any, Any] | Snapshot], lr: Callable[[int], LearningRate] | None, first: int
    ) -> Iterator[Batch | Snapshot]:
        number = first - 1
        for pair in self._drawn(batches, first):
            if isinstance(pair, Snapshot):
                pair.number = number + 1
                yield pair
                continue
            number += 1
            what = "lr"
            try:
                rate = lr(number) if lr is not None else None
                what = "loader"
                x, y = pair
                what = "target"
                y = self.stack.target(y)
            except (Exception, GeneratorExit) as error:
                raise StageError(what, number, error) from error
            yield Batch(number, x, y, rate).seal("loader")

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
            self._number += not isinstance(item, Snapshot)
            yield item

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Refuse a second run at the same time, and leave the layers fit for training whatever happens."""
        if self._running:
            raise RuntimeError("this schedule has an open run; finish it, or close() it, before the next")
        try:
            self._running, self._aborted = True, False
            self._step.begin()
            with intra_op_threads(self.threads):
                yield
        except GeneratorExit:
            raise
        except BaseException as error:
            self._aborted = True
            self._abort()
            lost = error.__cause__ if isinstance(error, StageError) else error
            if isinstance(lost, RuntimeError) and _of_a_lost_process(lost):
                raise StageError("loader", self._number, lost) from lost
            raise
        finally:
            self._running = False

    def __enter__(self) -> Schedule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An exception that is on its way matters more than what closing could have to say.
        if error is None:
            self.close()
        elif not self._aborted:  # else the time for it has been taken
            self._abort()


def _of_a_lost_process(error: RuntimeError) -> bool:
    """Tell whether torch's signal handler raised this as a loader's process vanished, wherever the main thread was."""
    return any(
        frame.f_globals.get("__name__") == "torch.utils.data._utils.signal_handling"
        for frame, _ in walk_tb(error.__traceback__)
    )
