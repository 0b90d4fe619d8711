"""Random streams that are derived, never carried.

A stream that is carried from batch to batch ties its numbers to who drew before, and in a pipeline "before"
depends on timing. Here every stream is a function of its coordinates, for example (seed, layer, step), so
any schedule, on any number of workers, draws the same numbers for the same layer and batch.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def derive_seed(*coordinates: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on the coordinates and on nothing else."""
    text = "\x1f".join(f"{type(c).__name__}:{c}" for c in coordinates)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*coordinates: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on `device`, seeded from the coordinates."""
    return torch.Generator(device=device).manual_seed(derive_seed(*coordinates))


class Dropout(nn.Module):
    """Drop elements with probability `p`, from a stream of the layer's own once one has been entered.

    `nn.Dropout` draws from the process-wide generator, so two layers that train at the same time would share
    one stream and their masks would depend on timing. Until `enter_stream` is called on an enclosing layer
    this module behaves as `nn.Dropout` does. Any shape, any floating dtype, any device.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout: got p={p}; expected a probability in [0, 1)")
        self.p = p
        self.stream: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with a share `p` of its elements zeroed and the rest scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x
        keep = torch.empty_like(x).bernoulli_(1.0 - self.p, generator=self.stream)
        return x * keep.div_(1.0 - self.p)

    def extra_repr(self) -> str:
        """Show the probability in the module's printed form."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, object]:
        """Leave the generator out: it can be neither copied nor pickled, and every step derives it anew."""
        return {**self.__dict__, "stream": None}


def enter_stream(layer: nn.Module, *coordinates: int | str) -> None:
    """Point every `Dropout` inside `layer` at the stream of these coordinates, on its own device."""
    seed_dropouts(layer, dropouts(layer), *coordinates)


def dropouts(layer: nn.Module) -> list[Dropout]:
    """Return the `Dropout`s inside `layer`."""
    return [module for module in layer.modules() if isinstance(module, Dropout)]


def seed_dropouts(layer: nn.Module, drops: list[Dropout], *coordinates: int | str) -> None:
    """Do what `enter_stream` does, for who has looked for the layer's `Dropout`s before."""
    if not drops:
        return
    parameter = next(layer.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    seed = derive_seed(*coordinates)
    stream = drops[0].stream
    if stream is None or stream.device != device:
        stream = torch.Generator(device=device)
    stream.manual_seed(seed)
    for drop in drops:
        drop.stream = stream


def streams(layer: nn.Module) -> list[torch.Generator]:
    """Return the streams that `enter_stream` has pointed the layer's `Dropout`s at, each once."""
    found = [module.stream for module in dropouts(layer)]
    return list({id(stream): stream for stream in found if stream is not None}.values())


def refuse_shared_randomness(model: nn.Module, schedule: str) -> None:
    """Raise ValueError if a module inside `model` draws from the process-wide generator while it trains.

    Layers that train at the same time would share that generator, so their numbers would depend on timing.
    """
    for name, module in model.named_modules():
        rate = getattr(module, "dropout", None) if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) else None
        if isinstance(module, nn.modules.dropout._DropoutNd):
            rate = module.p
        if isinstance(module, nn.RReLU):
            rate = module.upper - module.lower
        if isinstance(module, (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
            rate = 1.0
        if rate:
            raise ValueError(
                f"schedule {schedule!r}: {name} ({type(module).__name__}) draws from the process-wide generator, so "
                "two layers could not train at once and stay reproducible; use ALPackage.randomness.Dropout, "
                'set its rate to 0, take another module, or train with schedule="sequential"'
            )
