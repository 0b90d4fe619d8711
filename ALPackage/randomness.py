"""Random streams that are derived, never carried.

A stream that is carried from batch to batch ties its numbers to who drew before, and in a pipeline "before"
depends on timing. Here every stream is a function of its coordinates, for example (seed, layer, step), so
any schedule, on any number of workers, draws the same numbers for the same layer and batch.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import LayerError

M = TypeVar("M", bound=nn.Module)

log = logging.getLogger(__name__)


def derive_seed(*coordinates: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on the coordinates and on nothing else."""
    text = "\x1f".join(f"{type(c).__name__}:{c}" for c in coordinates)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*coordinates: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on `device`, seeded from the coordinates."""
    return torch.Generator(device=device).manual_seed(derive_seed(*coordinates))


class Dropout(nn.Module):
    """Zero elements with probability `p`, with random numbers from the layer's own stream.

    `nn.Dropout` draws from the process-wide generator. Layers that train at the same time share that generator, so
    their masks would depend on timing. This module draws the same numbers as `nn.Dropout` until a schedule seeds a
    stream for the layer (`enter_stream`), and from that stream afterwards. Any shape, floating dtype and device.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout: got p={p}; expected a probability in [0, 1)")
        self.p = p
        self.stream: torch.Generator | None = None
        #: (start, stop, total) where the input has these rows of a batch alone: they get what they get in all of it.
        self.rows: tuple[int, int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with a share `p` of it zeroed and the rest scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x
        keep = self._kept(x) if self.rows is None else self._kept_of_rows(x, *self.rows)
        return x * keep.div_(1.0 - self.p)

    def _kept(self, x: Tensor) -> Tensor:
        return self.noise(x).bernoulli_(1.0 - self.p, generator=self.stream)

    def _kept_of_rows(self, x: Tensor, start: int, stop: int, total: int) -> Tensor:
        if not x.dim() or not len(x) or len(x) % (stop - start):
            raise LayerError(
                f"Dropout: an input of shape {tuple(x.shape)} has not the {stop - start} rows of a replica's part in "
                "dimension 0; leave the module out of row_dropouts of the layer"
            )
        each = x.shape[0] // (stop - start)  # more than 1 where dimension 0 is rows and, say, positions in one
        whole = torch.empty((each * total, *x.shape[1:]), dtype=x.dtype, device=x.device)
        if not x.is_contiguous():  # random numbers are drawn in the order of the memory
            order = sorted(range(x.dim()), key=x.stride().__getitem__, reverse=True)
            whole = x.new_empty([whole.shape[dim] for dim in order]).permute([order.index(d) for d in range(x.dim())])
        kept = self._kept(whole)
        return kept[each * start : each * stop] if len(kept) == len(whole) else kept

    def noise(self, x: Tensor) -> Tensor:
        """Return an uninitialized tensor with one element per random number; it broadcasts against `x`."""
        return torch.empty_like(x)

    def extra_repr(self) -> str:
        """Show the probability in the module's printed form."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, object]:
        """Leave the generator out: it can be neither copied nor pickled, and every step derives it anew."""
        return {**self.__dict__, "stream": None}


class SliceDropout(Dropout):
    """Zero whole slices of the input: one random number for every index of its first `leading` dimensions.

    2 drops channels, as `nn.Dropout2d` does; 1 drops samples, as stochastic depth does; 0 drops the whole batch.
    `batched`: the number of dimensions of a batch; an input with one fewer is a single sample without dimension 0.
    """

    def __init__(self, p: float = 0.5, leading: int = 2, batched: int | None = None) -> None:
        super().__init__(p)
        self.leading = leading
        self.batched = batched

    def noise(self, x: Tensor) -> Tensor:
        """Return an uninitialized tensor of the shape of the slices' indices, followed by ones."""
        single = self.batched is not None and x.dim() == self.batched - 1
        leading = max(0, self.leading - single)
        return x.new_empty([*x.shape[:leading], *[1] * (x.dim() - leading)])

    def extra_repr(self) -> str:
        """Show the probability and the dimensions in the module's printed form."""
        return f"p={self.p}, leading={self.leading}"


def replace_dropout(model: M) -> M:
    """Replace dropout that draws from the process-wide generator by one that draws from the layer's own stream.

    Replaced, in place and with the same numbers for the same random draws: `nn.Dropout`, `nn.Dropout1d`,
    `nn.Dropout2d`, `nn.Dropout3d`, torchvision's `StochasticDepth` and timm's `DropPath`. Dropout inside another
    module's computation (an LSTM's or an attention's `dropout` argument, `F.dropout` in a `forward`) and
    `nn.AlphaDropout` cannot be replaced exactly; a warning names the modules of these kinds that remain. What was
    replaced is logged, at level INFO, by the logger "ALPackage.randomness".

    Args:
        model: A module, such as a whole ALStack. It is changed in place.

    Returns:
        The model; only where the model itself is a dropout, its replacement.

    Example:
        >>> net = replace_dropout(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)))
        >>> net
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): Dropout(p=0.1)
        )
        >>> type(net[1]).__module__
        'ALPackage.randomness'
    """
    itself = _equivalent(model)
    if itself is not None:
        return itself  # type: ignore[return-value]
    replaced, left = [], []
    for path, parent in list(model.named_modules()):
        for name, child in list(parent._modules.items()):  # `named_children` leaves out a child's second name
            if child is None:
                continue
            where = f"{path}.{name}".lstrip(".")
            # A new module at every place: one that two layers shared would tie their streams together.
            if (replacement := _equivalent(child)) is not None:
                setattr(parent, name, replacement)
                replaced.append(f"{where} ({type(child).__name__})")
            elif _drops(child):
                left.append(f"{where} ({type(child).__name__})")
    log.info("replace_dropout: replaced %s", ", ".join(replaced) or "nothing")
    if left:
        warnings.warn(
            f"replace_dropout: {', '.join(left)} still draws from the process-wide generator and cannot be replaced "
            'exactly; set its rate to 0, or train with schedule="sequential"',
            stacklevel=2,
        )
    return model


def _equivalent(module: nn.Module) -> Dropout | None:
    """Return the module of ours that computes the same, or None. A subclass may compute anything: None."""
    kind: Any = type(module)
    rate: Any = getattr(module, "p", 0.0)
    new: Dropout | None = None
    if kind is nn.Dropout and rate < 1.0:
        new = Dropout(rate)
    elif kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d) and rate < 1.0:
        # nn.Dropout2d takes an input with three dimensions for a batch; the other two take one fewer for one sample.
        new = SliceDropout(rate, 2, {nn.Dropout1d: 3, nn.Dropout3d: 5}.get(kind))
    # By name, because the library depends on neither torchvision nor timm.
    elif kind.__name__ == "StochasticDepth" and kind.__module__.startswith("torchvision.") and rate < 1.0:
        new = SliceDropout(rate, 1 if module.mode == "row" else 0)
    elif kind.__name__ == "DropPath" and kind.__module__.startswith("timm.") and module.scale_by_keep:
        new = SliceDropout(module.drop_prob or 0.0, 1)  # type: ignore[arg-type]
    return new.train(module.training) if new is not None else None


def _drops(module: nn.Module) -> bool:
    """Tell whether this is a module of torch that drops out at random and that `_equivalent` does not know."""
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0.0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return float(module.dropout) > 0.0
    return isinstance(module, nn.modules.dropout._DropoutNd) and 0.0 < module.p < 1.0


def dropouts(layer: nn.Module) -> list[Dropout]:
    """Return the `Dropout`s inside `layer`."""
    return [module for module in layer.modules() if isinstance(module, Dropout)]


def enter_stream(layer: nn.Module, *coordinates: int | str) -> None:
    """Have every `Dropout` inside `layer` draw from the stream of these coordinates, on the layer's device."""
    seed_dropouts(layer, dropouts(layer), *coordinates)


def seed_dropouts(layer: nn.Module, found: Sequence[Dropout], *coordinates: int | str) -> None:
    """Do what `enter_stream` does, for `found`: the result of `dropouts(layer)`, which costs more than seeding."""
    if not found:
        return
    parameter = next(layer.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    stream = found[0].stream
    if stream is None or stream.device != device:
        stream = torch.Generator(device=device)
    stream.manual_seed(derive_seed(*coordinates))
    for module in found:
        module.stream = stream


def share_rows(found: Sequence[Dropout], rows: tuple[int, int, int] | None) -> None:
    """Have `found`, the result of `dropouts(layer)`, draw for a whole batch and keep the rows [start, stop) of it.

    `rows`: (start, stop, total), where dimension 0 is the batch; None: each draws for what it gets.
    """
    for module in found:
        module.rows = rows


def streams(layer: nn.Module) -> list[torch.Generator]:
    """Return the streams that the layer's `Dropout`s draw from, each once."""
    found = [module.stream for module in dropouts(layer)]
    return list({id(stream): stream for stream in found if stream is not None}.values())
