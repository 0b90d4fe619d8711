"""What travels from layer to layer: a batch to train on, or one to predict on, and a guard over its tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import LayerError
from ..layer import LearningRate
from ..nested import same_values, tensors, versions
from ..rows import Share

#: The losses of every layer, first to last, by name; 0-d tensors.
LocalLosses = list[dict[str, Tensor]]


class InPlaceGuard:
    """Remembers the versions of the tensors that were handed on, to find out whether one was changed in place since.

    `giver`: the layer that handed them on, or "loader".
    """

    def __init__(self, giver: str, tree: Any) -> None:
        self._giver = giver
        self._tensors = tensors(tree)
        self._versions = versions(self._tensors)

    def check(self) -> None:
        """Raise LayerError if a tensor has been changed in place since it was handed on."""
        if versions(self._tensors) != self._versions:
            who = "the loader" if self._giver == "loader" else f"layer {self._giver!r}"
            raise LayerError(
                f"{who} handed on a tensor that was changed in place afterwards, so what comes next would depend on "
                "timing; hand on a new tensor every time (for example with .clone())"
            )


def as_pair(batch: Any) -> tuple[Any, Any]:
    """Return the (x, y) that a loader has yielded; raise TypeError, with what it is, for anything else."""
    got = f"an object of type {type(batch).__name__}"
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, list(batch)[:8]))
        raise TypeError(
            f"the loader yielded a {type(batch).__name__} with the keys {keys}; expected a pair (x, y): give run a "
            'generator that makes one, such as ((batch["x"], batch["y"]) for batch in loader)'
        )
    # A tensor of two rows, or a string of two letters, could be unpacked without any error.
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Tensor):
        got = f"a tensor of shape {tuple(batch.shape)}"
    elif isinstance(batch, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in batch[:8])
        got = f"a {type(batch).__name__} of {len(batch)} ({kinds})"
    raise TypeError(
        f"the loader yielded {got}; expected a pair (x, y), where x and y may be any nested tuples, lists and dicts of "
        "tensors"
    )


class MemoryCheck:
    """Looks, at the start of the first long enough run, whether a loader writes into the memory of its first batch.

    `draws`: how many batches after the first one may be drawn while layers still read it. A loader that then has not
    used its memory again is trusted. An array behind `torch.from_numpy` changes without a trace in the tensor's
    version, so its values are compared.
    """

    def __init__(self, draws: int) -> None:
        self._draws = draws
        self._drawn = 0
        self.end()

    def end(self) -> None:
        """Note that a run ends: what it was given is no longer in use."""
        self._first: list[Tensor] = []
        self._values: list[Tensor] = []
        if self._drawn <= self._draws:
            self._drawn = 0

    def passed(self, item: Any) -> bool:
        """Note what the loader yields next; return whether the first batch is as it was."""
        if self._drawn > self._draws:
            return True
        self._drawn += 1
        if self._drawn == 1:
            self._first = tensors(item)
            self._values = [one.detach().clone() for one in self._first]
            return True
        same = all(same_values(one, value) for one, value in zip(self._first, self._values, strict=True))
        if self._drawn > self._draws:
            self._first, self._values = [], []
        return same


@dataclass(eq=False)
class Marker:
    """What passes through the layers between runs and touches none of them: a word to the ranks that follow.

    `kind`: one of `ranks.link.Kind`.
    """

    kind: int
    content: Any = None


@dataclass(eq=False)
class Batch(ABC):
    """What training and predicting have in common.

    `events`: on GPUs, what a reader of the tensors waits for. `guard`: watches over the tensors that the next layer
    reads. `share`: the rows that this is, where replicas divide the batch among themselves. `layers`: how many of the
    stack's layers it is for, the first ones; the others pass it on as it is. None: all.
    """

    number: int
    events: list[Any] = field(init=False, default_factory=list)
    guard: InPlaceGuard | None = field(init=False, default=None)
    share: Share | None = field(init=False, default=None)
    layers: int | None = field(init=False, default=None)

    def is_for(self, layer: int) -> bool:
        """Return whether the layer with this index in the stack works on it."""
        return self.layers is None or layer < self.layers

    @property
    def empty(self) -> bool:
        """Whether this replica has no rows of the batch."""
        return self.share is not None and not self.share.size

    @property
    @abstractmethod
    def inputs(self) -> Any:
        """What the next layer reads."""

    @property
    @abstractmethod
    def left(self) -> list[Any]:
        """What each of the layers so far has left for the caller, first to last."""

    @property
    @abstractmethod
    def results(self) -> Any:
        """What the layers so far have left for the caller."""

    @abstractmethod
    def map_inputs(self, function: Callable[[Any], Any]) -> None:
        """Replace what the next layer reads by what `function` makes of it."""

    @abstractmethod
    def map_results(self, function: Callable[[Any], Any]) -> None:
        """Replace the results by what `function` makes of them."""


@dataclass(eq=False)
class TrainBatch(Batch):
    """A batch to train on. Its number and learning rate travel with it, so that no layer asks a clock for them."""

    x: Any
    y: Any
    lr: LearningRate | None = None
    losses: LocalLosses = field(default_factory=list)

    @property
    def inputs(self) -> Any:
        """The pair (x, y)."""
        return self.x, self.y

    @property
    def left(self) -> list[Any]:
        """The losses of the layers so far."""
        return self.losses

    @property
    def results(self) -> Any:
        """The losses of the layers so far."""
        # Flat: for dicts `tensors` would ask pytree, once per layer and batch.
        return [loss for layer in self.losses for loss in layer.values()]

    def map_inputs(self, function: Callable[[Any], Any]) -> None:
        """Replace the pair (x, y)."""
        self.x, self.y = function((self.x, self.y))

    def map_results(self, function: Callable[[Any], Any]) -> None:
        """Replace the losses."""
        self.losses = function(self.losses)


@dataclass(eq=False)
class PredictBatch(Batch):
    """A batch to predict on. `codes`: what `readout` of every layer so far has returned."""

    x: Any
    codes: list[Any] = field(default_factory=list)

    @property
    def inputs(self) -> Any:
        """The x."""
        return self.x

    @property
    def left(self) -> list[Any]:
        """The codes of the layers so far."""
        return self.codes

    @property
    def results(self) -> Any:
        """The codes of the layers so far."""
        return self.codes

    def map_inputs(self, function: Callable[[Any], Any]) -> None:
        """Replace the x."""
        self.x = function(self.x)

    def map_results(self, function: Callable[[Any], Any]) -> None:
        """Replace the codes."""
        self.codes = function(self.codes)
