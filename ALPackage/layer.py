"""What a schedule, a trainer or a report may know of a layer: one batch in flight, named losses, its own optimizer.

    x_{i-1}, y_{i-1} --forward--> x_i, y_i (detached)      backward and update concern this layer alone

Nothing that leaves a layer carries a gradient, so a layer can run its backward pass and its update while the next one
runs forward. How many losses a layer has, and what they mean, is known here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .busy import refuse_if_busy
from .errors import LayerError
from .nan_guard import Guard
from .nested import detach, tensors, to_device, versions
from .optimized import reset
from .randomness import Dropout, dropouts
from .rates import LearningRate as LearningRate  # a word of this contract too
from .rates import checked_rates
from .rows import Share, count_rows, join_rows, take_rows

Criterion = Callable[[Any, Any], Tensor]


class Averaging(Protocol):
    """What a layer knows of its replicas, which train on other rows of the same batches (see `ranks.averaging`)."""

    share: Share
    """The rows of the batch in flight that are this replica's."""

    def begin(self, layer: LocalLayer, share: Share, dropouts: Sequence[Dropout]) -> None:
        """Note which rows of the next batch are this replica's. `dropouts`: the layer's `row_dropouts`."""

    @property
    def waited(self) -> float:
        """Seconds that it has waited for the other replicas."""

    def backward(self, layer: LocalLayer) -> None:
        """Back-propagate this replica's loss, and give the layer the gradients and losses of the whole batch."""


class LocalLayer(nn.Module):
    """A layer that trains on its own losses: the base class of `AL` and of any other local objective.

    A subclass names its losses in `loss_names`, sets `self.optimizer` once its modules exist, and implements
    `compute` for training and `hidden`, `readout` and `decode` for inference:

        prediction of the first k layers = decode_1(.. decode_k(readout_k(hidden_k(.. hidden_1(x)))))

    One batch is in flight at a time: `forward` refuses a second one until `backward` has used the first (or `discard`
    has dropped it), because the update in between would change the weights that the first one was computed with.

    Example:
        A layer that trains on cross-entropy through a classifier of its own, and hands the labels on:

        >>> class Classifier(LocalLayer):
        ...     def __init__(self, width_in, width_out, classes):
        ...         super().__init__()
        ...         self.f = nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU())
        ...         self.head = nn.Linear(width_out, classes)
        ...         self.optimizer = torch.optim.Adam(self.parameters())
        ...
        ...     def compute(self, x, labels):
        ...         x = self.hidden(x)
        ...         return x, labels, {"loss": nn.functional.cross_entropy(self.readout(x), labels)}
        ...
        ...     def hidden(self, x):
        ...         return self.f(x)
        ...
        ...     def readout(self, hidden):
        ...         return self.head(hidden)
        >>> stack = ALStack([Classifier(4, 8, 3), Classifier(8, 8, 3)])
        >>> _ = stack(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
        >>> stack.backward_and_update()
        >>> stack.inference(torch.randn(5, 4)).shape
        torch.Size([5, 3])
    """

    #: One name per loss, in the order in which they are reported; result files take their columns from it.
    loss_names: tuple[str, ...] = ("loss",)
    #: Display names of losses, where they differ from the names.
    loss_titles: Mapping[str, str] = MappingProxyType({})
    #: Whether every loss is a mean over the rows of a batch, or does not depend on them, so that replicas may divide
    #: the rows among themselves.
    row_separable: bool = False
    #: The kinds of target that it takes and hands on, in words, such as "labels"; None: not said. A stack refuses
    #: neighbors of which one hands on another kind than the next one takes.
    takes: str | None = None
    hands_on: str | None = None

    #: Names that a mapping of learning rates may have, besides those of the optimizer's parameter groups.
    rate_names: tuple[str, ...] = ()

    optimizer: Optimizer

    #: What schedules multiply the learning rate that `run` gives by, for this layer.
    lr_share: float = 1.0

    def __init__(self) -> None:
        super().__init__()
        #: Set a `Guard` here to skip the steps of batches whose loss is not finite.
        self.guard: Guard | None = None
        #: Set where the layer has replicas.
        self.averaging: Averaging | None = None
        self._in_flight: Tensor | None = None
        self._updating = False
        self._last: dict[str, Tensor] | None = None
        self._assigned: torch.device | None = None
        #: Where its decoder is, if the rest of the layer is in another process (see `ranks.states`).
        self._decodes_on: torch.device | None = None

    def compute(self, x: Any, y: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return (x_i, y_i, losses by name) for one batch that is on the layer's device.

        Losses are 0-d with their graph, by the names of `loss_names` and in that order; backward goes through their
        sum, so weights belong in here. The caller detaches the outputs. The inputs must not be changed in place.
        """
        raise NotImplementedError(f"{type(self).__name__}.compute: implement it; it computes the losses of a batch")

    def hidden(self, x: Any) -> Any:
        """Return the layer's output x_i for its input, as training hands it on."""
        raise NotImplementedError(f"{type(self).__name__}.hidden: implement it; inference calls it for every layer")

    def readout(self, hidden: Any) -> Any:
        """Return what `decode` turns into a prediction, from the layer's output.

        Where replicas divide a batch, dimension 0 of its tensors has the rows.
        """
        raise NotImplementedError(f"{type(self).__name__}.readout: implement it; inference calls it for the last layer")

    def decode(self, code: Any) -> Any:
        """Return a code of this depth as one of the layer below; by default it stays as it is."""
        return code

    def rows(self, x: Any) -> int:
        """Return how many rows, or samples, an input of the layer has: by default the size of dimension 0."""
        return count_rows(x)

    def split(self, x: Any, y: Any, start: int, stop: int) -> tuple[Any, Any]:
        """Return the rows from `start` to before `stop` of the layer's input and target.

        Replicas divide a batch so. By default dimension 0 of every tensor has the rows. `y` is None for predictions.
        """
        total = self.rows(x)
        return take_rows(x, start, stop, total), take_rows(y, start, stop, total)

    def join(self, parts: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Return the input and target with the rows of all parts, in order: the inverse of `split`."""
        return join_rows([x for x, _ in parts]), join_rows([y for _, y in parts])

    def row_dropouts(self) -> list[Dropout]:
        """Return the `Dropout`s whose input has the rows of the batch in dimension 0: by default all of the layer.

        Each replica has them drop what they would drop of its rows in the whole batch.
        """
        return dropouts(self)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the modules behind "hidden", "readout" and "decode", to count what inference needs.

        By default the whole layer counts, as if `hidden` needed all of it.
        """
        return {"hidden": [self], "readout": [], "decode": []}

    @property
    def device(self) -> torch.device:
        """The device of the layer's parameters, to which inputs are moved; the CPU if it has none."""
        if self._decodes_on is not None:
            return self._decodes_on
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def placement(self) -> torch.device:
        """Where `assign` has put the layer: its device, or on the CPU the worker "cpu:K"."""
        if self._assigned is not None and self._assigned.type == self.device.type == "cpu":
            return self._assigned
        return self.device

    def assign(self, device: torch.device) -> None:
        """Move the layer to `device`; "cpu:K" means host memory and ties the layer to worker K.

        One on "meta", without values, gets its memory there when a schedule over ranks needs it (`ranks.states`).
        """
        if self.device.type != "meta":
            self.to(torch.device("cpu") if device.type == "cpu" else device)
        self._assigned = device

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Compute the local losses and return (x_i, y_i), detached, on the layer's device.

        Raises RuntimeError if the previous batch still waits for `backward`, if its `backward_and_update` still runs,
        and if the input was changed in place.
        """
        who = type(self).__name__
        if self._in_flight is not None and torch.is_grad_enabled():
            raise RuntimeError(
                f"{who}.forward: the previous batch still waits for backward(); call backward_and_update() first, "
                "or discard() to drop it, or use torch.no_grad() if this is not training"
            )
        if self._updating:
            raise RuntimeError(
                f"{who}.forward: backward_and_update() is still running on another thread; join that thread first, "
                "or call discard() after an interrupt"
            )
        _take_thread_count()
        x, y = to_device(detach((x, y)), self.device)
        if self.guard is not None and torch.is_grad_enabled():
            self.guard.save_buffers(self.buffers())
        inputs = tensors((x, y))
        before = versions(inputs)
        of_x = len(tensors(x))
        x, y, losses = self.compute(x, y)
        if (after := versions(inputs)) != before:
            which = "x" if after[:of_x] != before[:of_x] else "y"
            raise LayerError(
                f"{who}.forward: the input {which} was changed in place, by this layer or by whoever handed it on; use "
                "operations that are not in place, such as nn.ReLU(inplace=False), and hand on new tensors"
            )
        if tuple(losses) != self.loss_names or not losses:
            raise LayerError(
                f"{who}.compute: returned the losses {', '.join(losses) or '(none)'}; expected those of loss_names, in "
                f"their order: {', '.join(self.loss_names)}"
            )
        self._last = {name: loss.detach() for name, loss in losses.items()}
        if torch.is_grad_enabled():
            total = _total(losses)
            # Summed over the replicas, the gradients are those of the mean over all rows.
            self._in_flight = total if self.averaging is None else _full(total) * self.averaging.share.weight
        return detach(x), detach(y)

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of the last batch by name: detached 0-d tensors, NaN before any batch."""
        if self._last is None:
            return {name: torch.full((), float("nan")) for name in self.loss_names}
        return self._last

    def backward(self) -> None:
        """Back-propagate the local losses of the batch in flight. Raises RuntimeError if there is none."""
        if self._in_flight is None:
            who = type(self).__name__
            raise RuntimeError(f"{who}.backward: no batch in flight; call forward(x, y) first, with gradients enabled")
        in_flight, self._in_flight = self._in_flight, None
        _take_thread_count()
        if not in_flight.requires_grad and self._frozen():
            return  # it hands on what it computes, and nothing trains
        try:
            torch.autograd.backward(in_flight)
        except BaseException:
            self.discard()  # half of the gradients would be added to the next batch's
            raise

    def update(self) -> None:
        """Take one optimizer step and clear the gradients."""
        known = len(self.optimizer.state)
        try:
            if self.guard is None:
                self.optimizer.step()
            else:
                self.guard.step(self.optimizer, torch.stack(list(self.losses().values())).sum())
        except BaseException:
            # Ctrl-C in a parameter's first step may leave some of its moments unset, and every later step would fail.
            for parameter in list(self.optimizer.state)[known:]:
                del self.optimizer.state[parameter]
            raise
        self.optimizer.zero_grad(set_to_none=True)

    def backward_and_update(self) -> None:
        """Run `backward`, then `update`: the part of a batch that no other layer waits for."""
        try:
            # Inside `try`: a signal that arrives right after this line must not leave the layer locked.
            self._updating = True
            in_flight = self._in_flight
            if in_flight is not None and not in_flight.requires_grad and self._only_hands_on():
                self._in_flight = None
                return
            if self.averaging is None:
                self.backward()
            else:
                self.averaging.backward(self)
            self.update()
        finally:
            self._updating = False

    def _only_hands_on(self) -> bool:
        """Return whether backward and update have nothing to do: what a guard or replicas do belongs to every batch."""
        return self.guard is None and self.averaging is None and self._frozen()

    def _frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.parameters())

    def discard(self) -> None:
        """Drop the batch in flight and all gradients, for example after a failure, so that training can go on."""
        self._in_flight = None
        self._updating = False  # a signal may have kept `backward_and_update` from clearing it
        self.optimizer.zero_grad(set_to_none=True)

    def set_lr(self, lr: LearningRate) -> None:
        """Set the learning rate: a number for all parameter groups, or {group name: number} for some of them.

        Raises ValueError for a rate that is not a finite number >= 0, or a group that the optimizer does not have.
        """
        groups = self.optimizer.param_groups
        names = [group["name"] for group in groups if "name" in group]
        for name, rate in checked_rates(
            type(self).__name__, lr, list(dict.fromkeys([*self.rate_names, *names]))
        ).items():
            for group in groups:
                # A group without a name, from a user's own optimizer, takes every rate.
                if name is not None and group.get("name", name) != name:
                    continue
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # in place: a CUDA graph may have captured its address
                else:
                    group["lr"] = rate

    def reset_optimizer(self) -> None:
        """Have the optimizer update the parameters that the layer has now; call it after replacing or unfreezing some.

        An optimizer keeps the Parameter objects that it was made with, and a schedule refuses to train a layer with
        others. The learning rates and all other settings stay; moments start anew. A new parameter goes into the only
        parameter group, or into the one that is named like its part of the layer ("enc" or "ae" in an `AL`).

        Raises LayerError, and changes nothing, where that leaves a parameter without a group: the layer needs a new
        optimizer then.

        Example:
            >>> layer = AL(ENC(nn.Linear(4, 8), nn.Linear(8, 2)), AE(nn.Linear(3, 2), nn.Linear(2, 3)), lr=0.1)
            >>> layer.enc.f = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
            >>> layer.reset_optimizer()
            >>> group = layer.optimizer.param_groups[0]
            >>> group["params"][0] is layer.enc.f[0].weight, group["lr"]
            (True, 0.1)
        """
        refuse_if_busy(self, f"{type(self).__name__}.reset_optimizer")
        reset(self)
        self.discard()

    # While a run of the continuous schedule is open, these would give, or leave, a mixture that depends on timing.

    def train(self, mode: bool = True) -> LocalLayer:
        """Set training mode, or evaluation mode; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, f"{type(self).__name__}.{'train' if mode else 'eval'}")
        super().train(mode)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> LocalLayer:
        """Freeze or unfreeze the layer; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, f"{type(self).__name__}.requires_grad_")
        super().requires_grad_(requires_grad)
        return self

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """Return the layer's state; not while a run of the continuous schedule is open (see `Snapshot`)."""
        refuse_if_busy(self, f"{type(self).__name__}.state_dict")
        return super().state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load a state; not while a run of the continuous schedule is open."""
        refuse_if_busy(self, f"{type(self).__name__}.load_state_dict")
        return super().load_state_dict(*args, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LocalLayer:
        """Move the optimizer's moments along when the layer is moved or cast."""
        refuse_if_busy(self, f"{type(self).__name__}.to")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # a CUDA graph needs a tensor, on its own device
                on_gpu = self.device.type == "cuda"
                group["lr"] = group["lr"].to(self.device) if on_gpu else float(group["lr"])
                group["capturable"] = on_gpu
        if self.optimizer.state:
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        return self


def _full(loss: Tensor) -> Tensor:
    """Return a half-precision loss in float32, in which shares of a batch sum to all of it."""
    return loss.float() if loss.dtype in (torch.bfloat16, torch.float16) else loss


def _take_thread_count() -> None:
    """Have the calling thread use as many intra-op threads as were asked for.

    One that has just begun takes as many as there are cores, in another order of sums, until it asks.
    """
    torch.get_num_threads()


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the losses, so that one backward pass serves them all."""
    total, *others = losses.values()
    for loss in others:
        total = total + loss
    return total
