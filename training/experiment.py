"""One command: load, train every turn of every method, measure after each epoch, write, compare."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ALPackage import ALStack, PlacementError
from ALPackage.placement import resolve
from ALPackage.threads import default_threads
from data import DataError, Split
from data.batches import Batches
from models import BPStack, parameter_counts
from utils import set_deterministic, set_seed

from .arguments import Arguments, configure, parse
from .config import Config, Method, Task, count_threads, device_list, layer_count
from .errors import ConfigError, UsageError
from .memory import PeakMemory
from .provenance import collect
from .record import Record
from .report import comparison_table
from .results import Facts, MethodSummary, Results, prepare_output
from .tasks import Job, load_job
from .trainer import ALTrainer, BPTrainer, Trainer, cosine_lr

__all__ = ["Outcome", "exit_code", "main", "run"]


@dataclass(frozen=True)
class Outcome:
    """What a command leaves: the figures per method, the files, and whether it was interrupted."""

    title: str
    summaries: list[MethodSummary]
    files: list[Path]
    interrupted: bool


def main(task: Task, argv: Sequence[str] | None = None) -> int:
    """Run the command line of a task's entry point and return its exit code.

    0: done. 2: a mistake in the arguments, the config or the data, told in one line. 130: interrupted; the epochs
    that were finished are on disk.
    """
    return exit_code(lambda outcomes: outcomes.append(run(task, sys.argv[1:] if argv is None else argv)))


def exit_code(work: Callable[[list[Outcome]], None]) -> int:
    """Do the work, which appends what it leaves; report all of that, and what went wrong as a line and a code."""
    outcomes: list[Outcome] = []
    code, last_words = 0, ""
    try:
        work(outcomes)
    except (UsageError, DataError) as error:
        code, last_words = 2, f"error: {error}"
    except KeyboardInterrupt:
        code = 130
    for outcome in outcomes:
        if outcome.summaries:
            print(f"\n{outcome.title}\n{comparison_table(outcome.summaries)}")
    files = [path for outcome in outcomes for path in outcome.files]
    if files:
        print("\nresults:", *(f"  {path}" for path in files), sep="\n", flush=True)
    if code == 130 or any(outcome.interrupted for outcome in outcomes):
        code = 130
        kept = "the files above hold every epoch that was finished" if files else "before the first epoch was done"
        last_words = f"interrupted: {kept}"
    if last_words:
        print(last_words, file=sys.stderr)
    return code


def run(task: Task, argv: Sequence[str]) -> Outcome:
    """Run every method and turn of a command line; an interruption keeps what is done.

    Raises UsageError or DataError, before any training, for whatever can be refused.
    """
    arguments = parse(task, argv)
    config = configure(arguments)
    threads = {method: count_threads(config, arguments.model, method) for method in arguments.methods}
    for method in arguments.methods:
        _check_devices(config, arguments.model, method)
    out = prepare_output(config.outputpath)
    if torch.cuda.is_available():
        set_deterministic()
    job = load_job(config, arguments.dataset, arguments.model, arguments.data_root, arguments.limit_train)
    _introduce(arguments, job)
    record = Record(out, arguments.dataset, arguments.model)
    interrupted = False
    try:
        for method in arguments.methods:
            _run_method(arguments, config, job, method, threads[method], record)
        record.draw()
    except KeyboardInterrupt:
        interrupted = True
        with suppress(KeyboardInterrupt):  # who presses it again is not interested in pictures
            record.draw()
    for notice in record.notices():
        print(f"note: {notice}")
    title = f"{arguments.dataset}, {arguments.model}, {arguments.turns} turn{'s' * (arguments.turns > 1)}"
    return Outcome(title, record.summaries(), record.files(), interrupted)


def _check_devices(config: Config, model: str, method: Method) -> None:
    """Refuse a device that this machine does not have, naming the key of the config."""
    try:
        resolve(device_list(config, model, method), layer_count(model, method, config))
    except PlacementError as error:
        raise ConfigError(f"{method}_gpu_list: {str(error).removeprefix('devices: ')}") from None


def _introduce(arguments: Arguments, job: Job) -> None:
    data = job.data
    print(
        f"{data.name}, {arguments.model}: {len(data.train)} training, {len(data.val)} validation, "
        f"{len(data.test)} test samples; {len(data.classes)} classes"
    )
    for note in job.notes:
        print(f"  {note}")


def _run_method(arguments: Arguments, config: Config, job: Job, method: Method, threads: int, record: Record) -> None:
    """Run all turns of one method; its `Results` joins the record, so that an interruption keeps it."""

    def begin(seed: int) -> tuple[Trainer, ALStack | BPStack, list[torch.device]]:
        torch.set_num_threads(default_threads(1))  # measuring takes all cores, for both methods
        set_seed(seed)
        model = job.build(method)
        devices = model.set_device(device_list(config, arguments.model, method))
        if isinstance(model, ALStack):
            return ALTrainer(model, config.schedule, threads=threads, seed=seed), model, devices
        return BPTrainer(model, lr=job.lr, weight_decay=config.weight_decay), model, devices

    seeds = [config.seed + turn for turn in range(1, arguments.turns + 1)]
    trainer, model, devices = begin(seeds[0])
    with trainer:
        # Libraries set themselves up at the first batch; on a model that is thrown away, no method pays for it.
        first = islice(Batches(job.data.train, job.batch_size, job.transform, device=devices[0]), 2)
        trainer.train(first, lambda step: job.lr, lambda losses: None)
    trained, inferred = parameter_counts(model)
    facts = Facts(
        config={**config.model_dump(mode="json"), **job.resolved, "limit_train": arguments.limit_train},
        seeds=seeds,
        train_samples=len(job.data.train),
        parameters_training=trained,
        parameters_inference=inferred,
        threads=threads,
        schedule=config.schedule if method == "al" else None,
        devices=[str(device) for device in devices],
        provenance=collect(devices),
        notes=job.notes,
    )
    results = Results(record.out, arguments.dataset, arguments.model, method, len(model), facts)
    record.results.append(results)
    how = (
        f"{config.schedule}, {threads} intra-op threads per worker" if method == "al" else f"{threads} intra-op threads"
    )
    where = ", ".join(dict.fromkeys(map(str, devices)))
    print(f"{method.upper()}: {len(model)} layers on {where}; {how}; {trained:,} parameters")
    del trainer, model
    for turn, seed in enumerate(seeds, start=1):
        with PeakMemory(devices) as memory:
            trainer, _, devices = begin(seed)
            with trainer:
                _run_turn(trainer, job, config, record, turn, seed, devices)
        notes = [] if memory.exact else ["peak memory: of the process since it began, as this system tells no other"]
        results.finish_turn(turn, peak_memory_mb=memory.mb, notes=notes)


def _run_turn(
    trainer: Trainer,
    job: Job,
    config: Config,
    record: Record,
    turn: int,
    seed: int,
    devices: list[torch.device],
) -> None:
    """Train one model for all epochs, measuring and recording after each."""
    results = record.results[-1]
    method = results.method
    data = job.data
    steps = config.epochs * len(Batches(data.train, job.batch_size, job.transform))
    lr = cosine_lr(job.lr, job.end_lr, steps)
    train_time = 0.0
    for epoch in range(1, config.epochs + 1):
        batches = Batches(data.train, job.batch_size, job.transform, device=devices[0], seed=seed, epoch=epoch)
        with _Progress(f"{method} turn {turn} epoch {epoch}", batches) as progress:
            losses, seconds = trainer.train(batches, lr, progress)
        train_time += seconds

        def measure(split: Split) -> list[float]:
            return trainer.accuracies(Batches(split, job.test_batch_size, job.transform, device=devices[0]))

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
        print(
            f"{method} turn {turn} epoch {epoch}/{config.epochs}: train {train_acc[-1]:.2f} %, "
            f"val {val_acc[-1]:.2f} %, test {test_acc[-1]:.2f} %; "
            f"{seconds:.1f} s, {len(data.train) / seconds:,.0f} samples/s",
            flush=True,
        )
        record.draw_now_and_then()


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
