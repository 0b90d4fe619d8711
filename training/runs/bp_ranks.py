"""BP over the processes of a command: what rank 0 orders for it, and what the others do then."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from ALPackage import RankError, StageError
from ALPackage.stage.threads import WorkerThread
from data import DataError
from data.batches import Batches
from models import BPModel
from utils import set_seed

from ..config.arguments import Command
from ..config.schema import Config
from ..config.spec import RunSpec
from ..errors import UsageError
from ..trainers.parallel.ddp import DataParallelTrainer
from ..trainers.parallel.group import Group
from ..trainers.parallel.stage import shapes_between
from ..trainers.parallel.trainer import ParallelTrainer
from ..trainers.parallel.upcoming import Upcoming
from ..trainers.trainer import mixed_precision
from .placement import Placement, set_layout
from .ranks import Ranks
from .tasks import LoadedTask, builder, load_task, shape_from_json, shape_to_json, training_batches


def share_data(ranks: Ranks, task: LoadedTask) -> None:
    """Have the other ranks load the data that this one has loaded. Raises UsageError where one of them cannot."""
    ranks.order("load")
    for rank, answer in ranks.answers().items():
        if answer["mistake"] is not None:
            raise UsageError(f"{answer['mistake']} (in rank {rank})")
        if answer["digest"] != task.resolved["data_digest"]:
            raise UsageError(
                f"data: rank {rank} has other samples than rank 0; with --bp-parallel ddp every rank reads them: give "
                "all hosts the same data root"
            )


def load_for(command: Command, ranks: Ranks) -> LoadedTask | None:
    """Load the data on another rank, and let rank 0 know how that went."""
    arguments = command.arguments
    try:
        task = load_task(command.config, arguments.dataset, arguments.model, arguments.data_root, arguments.limit_train)
    except (DataError, UsageError) as error:
        ranks.answer(mistake=str(error), digest=None)
        return None
    ranks.answer(mistake=None, digest=task.resolved["data_digest"])
    return task


def lead_bp(
    ranks: Ranks, spec: RunSpec, task: LoadedTask, model: BPModel, placement: Placement | None, seed: int
) -> ParallelTrainer:
    """Return rank 0's trainer of a model, after having the other ranks make theirs.

    The model is where this rank trains it. `placement`: of a pipeline's layers.
    """
    order: dict[str, Any] = {
        "way": spec.bp_parallel,
        "shape": shape_to_json(task.shape),
        "devices": list(spec.devices) if spec.devices else None,
        "seed": seed,
        "threads": spec.threads,
        "stages": None,
    }
    if placement is not None:
        positions = task.data.train.inputs[0].shape[1] if isinstance(task.data.train.inputs, tuple) else None
        example, _ = next(iter(training_batches(task, model.devices[0])))
        with mixed_precision(model.devices, spec.config.precision):
            shapes = shapes_between(model, example, positions)
        order |= {
            "devices": [str(device) for device in placement.devices],
            "ranks": placement.ranks,
            "stages": placement.stages,
            "shapes": shapes,
            "positions": positions,
        }
    ranks.describe(_names(model, order, 0))
    ranks.order("train bp", **order)
    return _trainer(order, model, spec.config, Group(ranks.why), task.lr)


def follow_bp(command: Command, order: dict[str, Any], ranks: Ranks, task: LoadedTask | None) -> None:
    """Train with rank 0 until it ends its trainer."""
    begun: list[ParallelTrainer] = []
    held = ["BP"]
    rank = ranks.launch.rank

    def work() -> None:
        torch.get_num_threads()  # a thread's first question gives it another thread's count
        torch.set_num_threads(order["threads"])
        set_seed(order["seed"])
        model = builder(command.config, command.arguments.model, shape_from_json(order["shape"]))("bp")
        assert isinstance(model, BPModel)
        held[:] = _names(model, order, rank)
        ranks.describe(held)
        devices = order["devices"] or [ranks.devices[rank]] * len(model)
        if order["stages"] is not None:
            devices = Placement([torch.device(name) for name in devices], None, tuple(order["ranks"])).here(rank)
        model.set_device(devices)
        set_layout(model)
        trainer = _trainer(order, model, command.config, Group(), 0.0)
        begun.append(trainer)
        trainer.serve(_upcoming(task, trainer.devices[0], order["seed"]) if order["stages"] is None else None)

    try:
        _apart(work)
    except RankError:
        raise
    except Exception as error:
        traceback.print_exception(error)
        sys.stderr.flush()
        failed = StageError(", ".join(held), begun[0].step if begun else None, error)
        ranks.fail(failed)
        raise RankError(str(failed)) from None


def _trainer(order: dict[str, Any], model: BPModel, config: Config, group: Group, lr: float) -> ParallelTrainer:
    """Return this rank's trainer, as all ranks make it."""
    options = bp_options(config, order["seed"])
    if order["stages"] is None:
        return DataParallelTrainer(model, group, lr=lr, **options)
    from ..trainers.parallel.pipeline import PipelineTrainer  # takes a second to import

    given = {name: order[name] for name in ("way", "stages", "shapes", "positions")}
    return PipelineTrainer(model, group, lr=lr, **given, **options)


def _names(model: BPModel, order: dict[str, Any], rank: int) -> list[str]:
    """Return what a rank has, for messages."""
    if order["stages"] is None:
        return ["BP"]
    return [name for name, one in zip(model.layers, order["ranks"], strict=True) if one == rank]


def bp_options(config: Config, seed: int) -> dict[str, Any]:
    """Return what the config says about training by BP, as `BPTrainer` takes it."""
    return {
        "weight_decay": config.weight_decay,
        "label_smoothing": config.label_smoothing,
        "precision": config.precision,
        "on_nan": config.on_nan,
        "seed": seed,
    }


def _upcoming(task: LoadedTask | None, device: torch.device, seed: int) -> Upcoming:
    assert task is not None  # rank 0 has had it loaded

    def epoch(number: int, done: int) -> Batches:
        return training_batches(task, device, seed=seed, epoch=number, done=done)

    return Upcoming(epoch, len(epoch(1, 0)))


def _apart(work: Callable[[], None]) -> None:
    """Do something on a thread of its own: a signal is heard here while it waits for other ranks."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = WorkerThread(run, "bp-rank")
    thread.start()
    thread.finished()
    if failed:
        raise failed[0]
