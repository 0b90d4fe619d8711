"""All turns of one method: train, measure after every epoch, record, and say where the time went."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ALPackage import ALStack
from ALPackage.threads import default_threads
from ALPackage.trace import Trace
from data import Split
from data.batches import Batches
from models import parameter_counts
from utils import set_seed

from .arguments import Arguments
from .board import Board
from .compiling import compile_layers
from .config import Config, Method, VisionConfig, device_list
from .memory import PeakMemory
from .placing import Placed, place
from .provenance import collect
from .record import Record
from .results import Facts, Results
from .tasks import Job
from .timeline import write_trace
from .trainer import ALTrainer, BPTrainer, Trainer, cosine_lr, mixed_precision
from .utilisation import Utilisation, measure_utilisation

__all__ = ["Setting", "run_method"]


@dataclass(frozen=True)
class Setting:
    """What is to be run: one method of a command. `threads`: intra-op threads of a worker."""

    arguments: Arguments
    config: Config
    job: Job
    method: Method
    threads: int

    def batches(self, device: torch.device, **order: int) -> Batches:
        """Return the training batches on `device`; `order`: seed and epoch."""
        return Batches(self.job.data.train, self.job.batch_size, self.job.transform, device=device, **order)


def run_method(setting: Setting, record: Record, board: Board | None) -> None:
    """Run all turns of one method; its `Results` joins the record, so that an interruption keeps it."""
    arguments, config, method = setting.arguments, setting.config, setting.method
    seeds = [config.seed + turn for turn in range(1, arguments.turns + 1)]
    facts, layers, placed = _rehearse(setting, seeds)
    results = Results(record.out, arguments.dataset, arguments.model, method, layers, facts)
    record.results.append(results)
    used: Utilisation | None = None
    for turn, seed in enumerate(seeds, start=1):
        trace = Trace() if arguments.trace and method == "al" and turn == 1 else None
        with PeakMemory([torch.device(name) for name in facts.devices]) as memory:
            trainer = _trainer(setting, seed, placed, trace)
            with trainer:
                used = _run_turn(setting, trainer, record, board, turn, seed, placed)
        notes = [] if memory.exact else ["peak memory: of the process since it began, as this system tells no other"]
        results.finish_turn(
            turn, peak_memory_mb=memory.mb, utilisation=used.to_json() if used is not None else None, notes=notes
        )
        if trace is not None and arguments.trace is not None:
            record.extras += write_trace(trace, arguments.trace, title=f"{arguments.dataset} {arguments.model}")
    if used is not None:
        print(used.text(), flush=True)


def _rehearse(setting: Setting, seeds: list[int]) -> tuple[Facts, int, Placed | None]:
    """Place the layers, warm up, introduce the method, and return its facts, its layers and its placement.

    All of it on models that are thrown away: libraries set themselves up at the first batch, and no method pays for
    that in its times.
    """
    config, job, method = setting.config, setting.job, setting.method
    placed: Placed | None = None
    torch.set_num_threads(setting.threads)
    set_seed(seeds[0])
    model = job.build(method)
    if isinstance(model, ALStack):
        batch = next(iter(setting.batches(torch.device("cpu"), seed=seeds[0])))
        placed = place(model, batch, config, setting.arguments.model, setting.threads)
    trainer = _trainer(setting, seeds[0], placed, None)
    with trainer:
        first = islice(setting.batches(trainer.devices[0]), 2)
        trainer.train(first, lambda step: job.lr, lambda losses: None)
    trained, inferred = parameter_counts(model)
    names = placed.names if placed else [str(device) for device in trainer.devices]
    how = (
        f"{config.schedule}, {setting.threads} intra-op threads per worker" if placed else f"{setting.threads} threads"
    )
    where = ", ".join(dict.fromkeys(names))
    print(f"{method.upper()}: {len(model)} layers on {where}; {how}; {trained:,} parameters", flush=True)
    if placed and placed.plan:
        print("\n".join(f"  {line}" for line in placed.plan.text().splitlines()), flush=True)
    facts = Facts(
        config={**config.model_dump(mode="json"), **job.resolved, "limit_train": setting.arguments.limit_train},
        seeds=seeds,
        train_samples=len(job.data.train),
        parameters_training=trained,
        parameters_inference=inferred,
        threads=setting.threads,
        schedule=config.schedule if method == "al" else None,
        devices=names,
        plan=placed.plan.to_json() if placed and placed.plan else None,
        provenance=collect(trainer.devices),
        notes=job.notes,
    )
    return facts, len(model), placed


def _trainer(setting: Setting, seed: int, placed: Placed | None, trace: Trace | None) -> Trainer:
    """Return a fresh model with its trainer; the seed decides the initial weights."""
    config, job = setting.config, setting.job
    torch.set_num_threads(default_threads(1))  # BP, and measuring it, takes all cores
    set_seed(seed)
    model = job.build(setting.method)
    model.set_device(placed.names if placed else device_list(config, setting.arguments.model, "bp"))
    if any(parameter.is_cuda for parameter in model.parameters()):
        model.to(memory_format=torch.channels_last)  # what tensor cores read; for the CPU see benchmarks/NOTES.md
    if isinstance(config, VisionConfig) and config.compile:
        whole = setting.batches(model.devices[0])
        x, labels = next(iter(whole))
        with mixed_precision(model.devices, config.precision):
            sizes = sorted({stop - start for start, stop in whole.bounds})
            compile_layers(model, [(x[:size], labels[:size]) for size in sizes], setting.threads)
    if not isinstance(model, ALStack):
        return BPTrainer(model, lr=job.lr, weight_decay=config.weight_decay, precision=config.precision)
    assert placed is not None  # every AL model has been placed
    options: dict[str, Any] = {"stages": placed.stages} if config.schedule == "continuous" else {}
    options |= {"threads": setting.threads, "seed": seed, "trace": trace, "cuda_graph": config.cuda_graph}
    return ALTrainer(model, config.schedule, precision=config.precision, **options)


def _run_turn(
    setting: Setting,
    trainer: Trainer,
    record: Record,
    board: Board | None,
    turn: int,
    seed: int,
    placed: Placed | None,
) -> Utilisation | None:
    """Train one model for all epochs, measuring and recording after each; return how AL's workers were used."""
    config, job, method, data = setting.config, setting.job, setting.method, setting.job.data
    results = record.results[-1]
    per_epoch = len(setting.batches(trainer.devices[0]))
    lr = cosine_lr(job.lr, job.end_lr, config.epochs * per_epoch)
    train_time = 0.0
    used: Utilisation | None = None
    for epoch in range(1, config.epochs + 1):
        batches = setting.batches(trainer.devices[0], seed=seed, epoch=epoch)
        with _Progress(f"{method} turn {turn} epoch {epoch}", batches) as progress:
            losses, seconds = trainer.train(batches, lr, progress)
        train_time += seconds

        def measure(split: Split) -> list[float]:
            return trainer.accuracies(Batches(split, job.test_batch_size, job.transform, device=trainer.devices[0]))

        train_acc, val_acc, test_acc = measure(data.probe), measure(data.val), measure(data.test)
        results.add(
            turn,
            epoch,
            train_acc=train_acc[-1],
            val_acc=val_acc[-1],
            test_acc=test_acc[-1],
            train_time=train_time,
            test_acc_depth=test_acc if method == "al" else None,
            **losses,
        )
        speed = len(data.train) / seconds
        print(
            f"{method} turn {turn} epoch {epoch}/{config.epochs}: train {train_acc[-1]:.2f} %, "
            f"val {val_acc[-1]:.2f} %, test {test_acc[-1]:.2f} %; {seconds:.1f} s, {speed:,.0f} samples/s",
            flush=True,
        )
        if placed is not None:
            costs = [(cost.name, cost.total) for cost in placed.plan.costs] if placed.plan else None
            used = measure_utilisation(
                trainer.usage(),
                train_time,
                costs=costs,
                batches=epoch * per_epoch,
                schedule=config.schedule,
                at_once=placed.plan.at_once if placed.plan else math.inf,
            )
        if board is not None:
            board.losses(method, turn, trainer.step, losses, trainer.layers)
            accuracies = {"train": train_acc[-1], "val": val_acc[-1], "test": test_acc[-1]}
            board.epoch(method, turn, epoch, accuracies=accuracies, samples_per_second=speed, utilisation=used)
        record.draw_now_and_then()
    return used


class _Progress:
    """A bar per epoch with losses and samples/s; silent where stderr is no terminal.

    Losses are read from the device twice a second at most, because each reading makes the host wait.
    """

    def __init__(self, label: str, batches: Batches) -> None:
        self._sizes = iter([stop - start for start, stop in batches.bounds])
        self._bar = tqdm(total=len(batches.split), desc=label, unit=" samples", leave=False, disable=None)
        self._shown = 0.0

    def __call__(self, losses: dict[str, Tensor]) -> None:
        self._bar.update(next(self._sizes))
        if not self._bar.disable and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            self._bar.set_postfix({name: f"{float(loss):.3f}" for name, loss in losses.items()})

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
