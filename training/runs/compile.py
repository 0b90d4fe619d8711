"""torch.compile for the layers of a model, all of it before training starts.

The compiler is not thread-safe, so nothing may be compiled once workers run: every shape that an epoch brings is
compiled here, on the caller's thread.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ALPackage import ALStack
from ALPackage.stage.threads import Autocast, IntraOpThreads
from models import BPModel

from ..errors import ConfigError


def compile_layers(model: ALStack | BPModel, batches: Iterable[tuple[Any, Tensor]], threads: int) -> None:
    """Compile every layer for the shapes of `batches`; weights, buffers and moments stay as they are.

    `threads`: intra-op threads of a worker. With other threads, or another autocast than the caller's, the workers
    would compile again.
    Raises ConfigError where torch.compile does not work.
    """
    import torch._dynamo  # importing it takes seconds, which only a run that compiles should pay

    # Compiling runs the layers, which moves the running statistics of batch normalization.
    before = copy.deepcopy(model.state_dict())
    model.train()
    if isinstance(model, ALStack):
        parts = [part for layer in model for child in layer.children() for part in _called(child)]
    else:
        parts = list(model.layers.values())
    shapes = list(batches)
    try:
        # torch counts the compilations of all modules together and silently gives up after a few. BP sees every shape
        # a second time, in evaluation.
        limits = torch._dynamo.config
        limits.cache_size_limit = max(limits.cache_size_limit, 2 * len(parts) * (len(shapes) + 1))
        # One graph per shape: an epoch has two at most, and static shapes give faster code.
        for part in parts:
            part.compile(dynamic=False)
        for x, labels in shapes:
            if isinstance(model, ALStack):
                with IntraOpThreads(threads):
                    with Autocast().context():
                        model(x, labels)
                    model.backward()
            else:
                torch.autograd.backward(model(x).float().sum())
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ConfigError(
            f"compile: torch.compile does not work here ({type(error).__name__}: {reason}); leave compile at false"
        ) from error
    finally:
        for layer in model if isinstance(model, ALStack) else ():
            layer.discard()
        model.zero_grad(set_to_none=True)
        model.load_state_dict(before)


def _called(part: nn.Module) -> list[nn.Module]:
    """Return the modules whose forward a layer calls: of a dict of heads, each head."""
    return list(part.values()) if isinstance(part, nn.ModuleDict) else [part]
