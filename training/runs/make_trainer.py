"""A fresh model with its trainer, and the batches that it trains on."""

from __future__ import annotations

from typing import Any

import torch

from ALPackage import ALStack
from ALPackage.stage.threads import process_threads
from ALPackage.stage.trace import Trace
from data.batches import Batches
from models import BPModel
from utils import set_seed

from ..config.schema import VisionConfig
from ..config.spec import RunSpec
from ..trainers.al import ALTrainer
from ..trainers.bp import BPTrainer
from ..trainers.trainer import Trainer, mixed_precision
from .compile import compile_layers
from .placement import Placement, set_layout
from .tasks import LoadedTask


def training_batches(task: LoadedTask, device: torch.device | str, **order: int) -> Batches:
    """Return the training batches on `device`; `order`: seed, epoch, and how many of its batches are done."""
    return Batches(task.data.train, task.batch_size, task.transform, device=device, **order)


def make_trainer(
    spec: RunSpec, task: LoadedTask, placement: Placement | None, seed: int, trace: Trace | None
) -> Trainer:
    """Return a trainer of a new model; the seed decides the initial weights. `placement`: of local layers."""
    config = spec.config
    # The schedule limits the threads of its workers itself; BP and measuring take all cores.
    torch.set_num_threads(process_threads())
    set_seed(seed)
    model = task.build(spec.method)
    # Before the optimizer has moments, which would have to move along.
    model.set_device(placement.names if placement else list(spec.devices or ()) or "auto")
    set_layout(model)
    if isinstance(config, VisionConfig) and config.compile:
        _compile(model, spec, task)
    if not isinstance(model, ALStack):
        return BPTrainer(
            model,
            lr=task.lr,
            weight_decay=config.weight_decay,
            label_smoothing=config.label_smoothing,
            precision=config.precision,
            on_nan=config.on_nan,
            seed=seed,
        )
    assert placement is not None  # local layers are always placed first
    # Only the pipeline has workers to choose; the other schedules go layer by layer.
    options: dict[str, Any] = {}
    if config.schedule == "continuous":
        options = {"workers": config.workers, "streams_per_device": config.streams_per_device}
    options |= {"threads": spec.threads, "seed": seed, "trace": trace, "cuda_graph": config.cuda_graph}
    return ALTrainer(model, config.schedule, precision=config.precision, on_nan=config.on_nan, **options)


def _compile(model: ALStack | BPModel, spec: RunSpec, task: LoadedTask) -> None:
    """Compile the layers for every size of batch that an epoch has, which are two at most."""
    whole = training_batches(task, model.devices[0])
    x, labels = next(iter(whole))
    sizes = sorted({stop - start for start, stop in whole.bounds})
    with mixed_precision(model.devices, spec.config.precision):
        compile_layers(model, [(x[:size], labels[:size]) for size in sizes], spec.threads)
