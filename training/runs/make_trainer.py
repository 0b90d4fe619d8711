"""A fresh model with its trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ALPackage import ALStack
from ALPackage.exits.work import Work, count_work
from ALPackage.stage.threads import process_threads
from ALPackage.stage.trace import Trace
from data.batches import Batches
from models import BPModel
from utils import set_seed

from ..config.schema import Config, VisionConfig
from ..config.spec import RunSpec
from ..trainers.al import ALTrainer
from ..trainers.bp import BPTrainer
from ..trainers.trainer import Trainer, mixed_precision
from .bp_ranks import bp_options, lead_bp
from .compile import compile_layers
from .placement import Placement, set_layout
from .ranks import Ranks
from .tasks import LoadedTask, shape_to_json, training_batches


def make_trainer(
    spec: RunSpec,
    task: LoadedTask,
    placement: Placement | None,
    seed: int,
    trace: Trace | None,
    ranks: Ranks | None = None,
) -> Trainer:
    """Return a trainer of a new model; the seed decides the initial weights.

    `placement`: of local layers, or of a pipeline's. `ranks`: the processes that train together, which make their
    parts too.
    """
    config = spec.config
    # The schedule limits the threads of its workers itself; BP and measuring take all cores.
    torch.set_num_threads(spec.threads if ranks is not None and spec.method == "bp" else process_threads())
    set_seed(seed)
    model = task.build(spec.method)
    # Before the optimizer has moments, which would have to move along.
    model.set_device(placement.here(0) if placement else list(spec.devices or ()) or "auto")
    set_layout(model)
    if isinstance(config, VisionConfig) and config.compile:
        _compile(model, spec, task)
    if not isinstance(model, ALStack):
        if ranks is not None:
            return lead_bp(ranks, spec, task, model, placement, seed)
        return BPTrainer(model, lr=task.lr, **bp_options(config, seed))
    assert placement is not None  # local layers are always placed first
    options = {**schedule_options(spec.schedule, config, placement.ranks), "threads": spec.threads, "seed": seed}
    if ranks is not None:
        options["work"] = _work(model, task)
        order_training(ranks, spec, task, placement, seed)
    return ALTrainer(model, spec.schedule, precision=config.precision, on_nan=config.on_nan, trace=trace, **options)


def _work(stack: ALStack, task: LoadedTask) -> Work | None:
    """Return what inference costs, counted while all layers are here; None where nothing can be counted.

    Nothing is trained and nothing drawn: the layers are in evaluation mode meanwhile.
    """
    x, _ = next(iter(Batches(task.data.val, task.test_batch_size, task.transform, device=stack.devices[0])))
    stack.eval()
    try:
        return count_work(stack, x)
    except (ValueError, RuntimeError):  # what is left out then is a table of the report
        return None
    finally:
        stack.train()


def schedule_options(schedule: str, config: Config, ranks: Sequence[int] | None) -> dict[str, Any]:
    """Return what the config says about a schedule, as `ALPackage.make_schedule` takes it."""
    options: dict[str, Any] = {"cuda_graph": config.cuda_graph}
    # Only the pipeline has workers to choose; the other schedules go layer by layer.
    if schedule in ("continuous", "distributed"):
        options |= {"workers": config.workers, "streams_per_device": config.streams_per_device}
    if schedule == "distributed":
        options |= {"ranks": ranks, "replicas": config.stage_replicas, "sync_batchnorm": config.sync_batchnorm}
        options |= {"timeout": config.timeout, "wire": config.wire}
    return options


def order_training(ranks: Ranks, spec: RunSpec, task: LoadedTask, placement: Placement, seed: int) -> None:
    """Have the other ranks make their parts of the schedule that is made next."""
    assert placement.ranks is not None
    ranks.describe(placement.layers_of(0, spec.layers))
    ranks.order(
        "train",
        method=spec.method,
        shape=shape_to_json(task.shape),
        devices=[str(device) for device in placement.devices],
        ranks=placement.ranks,
        threads=spec.threads,
        seed=seed,
    )


def _compile(model: ALStack | BPModel, spec: RunSpec, task: LoadedTask) -> None:
    """Compile the layers for every size of batch that an epoch has, which are two at most."""
    whole = training_batches(task, model.devices[0])
    x, labels = next(iter(whole))
    sizes = sorted({stop - start for start, stop in whole.bounds})
    with mixed_precision(model.devices, spec.config.precision):
        compile_layers(model, [(x[:size], labels[:size]) for size in sizes], spec.threads)
