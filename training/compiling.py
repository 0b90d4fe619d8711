"""torch.compile for a model's layers, all of it done before training begins.

The compiler is not thread-safe, so nothing may be compiled once workers run: every shape that an epoch will bring is
compiled here, on the caller's thread.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ALPackage import ALStack
from ALPackage.threads import Autocast, intra_op_threads
from models import BPStack

from .errors import ConfigError

__all__ = ["compile_layers"]


def compile_layers(model: ALStack | BPStack, batches: Iterable[tuple[Any, Tensor]], threads: int) -> None:
    """Compile every layer for the shapes of `batches`; weights, buffers and moments stay as they are.

    `threads`: intra-op threads of a worker, and autocast as it is now: with others the workers would compile anew.
    Raises ConfigError where torch.compile does not work.
    """
    before = copy.deepcopy(model.state_dict())
    model.train()
    parts = [part for layer in model for part in (layer.enc, layer.ae)] if isinstance(model, ALStack) else []
    for part in parts or model.layers.values():
        part.compile(dynamic=False)
    try:
        for x, labels in batches:
            if isinstance(model, ALStack):
                with intra_op_threads(threads):
                    with Autocast().entered():
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
