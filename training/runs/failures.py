"""What the user can mend where training fails, in one line: a device without memory, a network of their own."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ALPackage import StageError
from ALPackage.errors import place_of, words_of

from ..config.load import method_title
from ..config.own_network import own_network
from ..config.schema import VisionConfig
from ..config.spec import RunSpec
from ..errors import UsageError
from .exit_code import MISTAKES
from .memory import out_of_memory
from .tasks import LoadedTask

_TORCH = Path(torch.__file__).parent
#: A failure has passed through one of these if it comes from a forward or a backward pass.
_PASSES = (_TORCH / "nn" / "modules" / "module.py", _TORCH / "autograd" / "__init__.py")


@contextmanager
def told_failures(spec: RunSpec, task: LoadedTask) -> Iterator[None]:
    """Turn what is the user's to mend into a UsageError; all else passes as it is."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, StageError) else error
        if out_of_memory(cause):
            raise UsageError(_too_large(spec, task, error)) from None
        network = own_network(spec.model)
        if network is None or cause is None or isinstance(cause, MISTAKES) or not _in_a_pass(error):
            raise
        words = (
            str(error)
            if isinstance(error, StageError)
            else f"{method_title(spec.method)} failed: {type(error).__name__}: {words_of(error)}"
        )
        raise UsageError(f"network {network.typed}: {words.splitlines()[0]}{place_of(cause)}") from error


def _in_a_pass(error: Exception) -> bool:
    """Tell whether a failure comes from the network, and not from what makes the batches or from the program."""
    if isinstance(error, StageError):
        return error.layer != "loader"
    return any(Path(frame.filename) in _PASSES for frame in traceback.extract_tb(error.__traceback__))


def _too_large(spec: RunSpec, task: LoadedTask, error: BaseException) -> str:
    method = method_title(spec.method)
    layer = error.layer if isinstance(error, StageError) else None
    who = method if layer is None else "the loader" if layer == "loader" else f"layer {layer} of {method}"
    devices = json.dumps(list(spec.devices) if spec.devices else "auto")
    vision = isinstance(spec.config, VisionConfig)
    batch, width = ("train_batch_size", "width") if vision else ("batch_size", "x_hid")
    if spec.network is not None:
        width = "the widths in your function"
    if isinstance(error, StageError) and error.rank is not None:
        who += f" in rank {error.rank}"
    return (
        f"{who} ran out of memory; the devices are {devices}, a batch has {task.batch_size} samples "
        f"in training and {task.test_batch_size} in evaluation: lower {batch}, "
        f"{'test_batch_size ' if vision else ''}or {width}, or spread the layers over more devices"
    )
