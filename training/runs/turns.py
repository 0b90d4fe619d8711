"""All turns of one method: place, warm up, train, record, and say where the time went."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import torch

from ALPackage import ALStack, StageError
from ALPackage.stage.threads import default_threads
from ALPackage.stage.trace import Trace
from models import parameter_counts
from utils import set_seed

from ..checkpoints.resume import checkpoint_errors, describe
from ..checkpoints.store import Checkpoint
from ..config.load import device_list
from ..config.schema import VisionConfig
from ..errors import UsageError
from ..report.record import Record
from ..report.results import Facts, Results
from ..report.tensorboard import TensorBoardWriter
from ..report.timeline import write_trace
from ..report.utilization import Utilization
from ..trainers.al import ALTrainer
from ..trainers.bp import BPTrainer
from ..trainers.trainer import Trainer, mixed_precision
from .compile import compile_layers
from .epochs import Turn, run_turn
from .memory import PeakMemory, out_of_memory
from .placement import Placement, place
from .provenance import collect, versions
from .setting import Setting, resolved_config


def run_method(setting: Setting, record: Record, board: TensorBoardWriter | None) -> None:
    """Run all turns of one method; its `Results` joins the record, so that an interruption keeps it.

    Raises UsageError where a device has too little memory.
    """
    try:
        _run_method(setting, record, board)
    except (StageError, MemoryError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, StageError) else error
        if not out_of_memory(cause):
            raise
        raise UsageError(_too_large(setting, error)) from None


def _too_large(setting: Setting, error: BaseException) -> str:
    """Say what ran out of memory, and what would need less."""
    config = setting.config
    layer = error.layer if isinstance(error, StageError) else None
    who = setting.method.upper() if layer is None else "the loader" if layer == "loader" else f"layer {layer} of AL"
    given = device_list(config, setting.arguments.model, setting.method)
    vision = isinstance(config, VisionConfig)
    batch, width = ("train_batch_size", "width") if vision else ("batch_size", "x_hid")
    return (
        f"{who} ran out of memory; the devices are {json.dumps(given)}, a batch has {setting.job.batch_size} samples "
        f"in training and {setting.job.test_batch_size} in evaluation: lower {batch}, "
        f"{'test_batch_size ' if vision else ''}or {width}, or spread the layers over more devices"
    )


def _run_method(setting: Setting, record: Record, board: TensorBoardWriter | None) -> None:
    arguments, method, seeds, resumed = setting.arguments, setting.method, setting.seeds, setting.resumed
    if resumed is not None and setting.finished:
        _recall(setting, record, resumed)
        return
    facts, layers, placed = _rehearse(setting, seeds)
    results = Results(record.out, arguments.dataset, arguments.model, method, layers, facts)
    record.results.append(results)
    if resumed is not None:
        with checkpoint_errors(resumed):
            results.remember(resumed.facts.results)
        results.resumptions += 1
        print("\n".join(describe(resumed, setting.threads, versions())), flush=True)
    used: Utilization | None = None
    for number, seed in enumerate(seeds, start=1):
        here = resumed is not None and resumed.facts.turn == number
        if resumed is not None and (number < resumed.facts.turn or (here and resumed.facts.turn_finished)):
            continue
        trace = Trace() if arguments.trace and method == "al" and number == 1 else None
        with PeakMemory([torch.device(name) for name in facts.devices]) as memory:
            trainer = _trainer(setting, seed, placed, trace)
            turn = Turn(setting, trainer, record, number, seed)
            if resumed is not None and here:
                with checkpoint_errors(resumed):
                    turn.go_on(resumed)
            with trainer:
                used = run_turn(turn, board, placed)
        notes = [] if memory.exact else ["peak memory: of the process since it began, as this system tells no other"]
        results.finish_turn(
            number, peak_memory_mb=memory.mb, utilization=used.to_json() if used is not None else None, notes=notes
        )
        turn.finish()
        if trace is not None and arguments.trace is not None and used is not None:
            record.extras += write_trace(trace, arguments.trace, title=f"{arguments.dataset} {arguments.model}")
    if used is not None:
        print(used.text(), flush=True)


def _recall(setting: Setting, record: Record, finished: Checkpoint) -> None:
    """Record what an earlier process has finished."""
    arguments, method, memory = setting.arguments, setting.method, finished.facts.results
    with checkpoint_errors(finished):
        facts = Facts(**memory["facts"])
        results = Results(record.out, arguments.dataset, arguments.model, method, memory["layers"], facts)
        results.remember(memory)
        results.write()
    record.results.append(results)
    print(f"{method.upper()}: finished before, nothing is left to do", flush=True)


def _rehearse(setting: Setting, seeds: list[int]) -> tuple[Facts, int, Placement | None]:
    """Place the layers, warm up, introduce the method, and return its facts, its layers and its placement.

    All of it on models that are thrown away: libraries set themselves up at the first batch, and no method pays for
    that in its times.
    """
    config, job, method = setting.config, setting.job, setting.method
    placed: Placement | None = None
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
        config=resolved_config(setting.arguments, config, job),
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


def _trainer(setting: Setting, seed: int, placed: Placement | None, trace: Trace | None) -> Trainer:
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
        return BPTrainer(
            model,
            lr=job.lr,
            weight_decay=config.weight_decay,
            label_smoothing=config.label_smoothing,
            precision=config.precision,
            on_nan=config.on_nan,
            seed=seed,
        )
    assert placed is not None  # every AL model has been placed
    options: dict[str, Any] = {"stages": placed.stages} if config.schedule == "continuous" else {}
    options |= {"threads": setting.threads, "seed": seed, "trace": trace, "cuda_graph": config.cuda_graph}
    return ALTrainer(model, config.schedule, precision=config.precision, on_nan=config.on_nan, **options)
