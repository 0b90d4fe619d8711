"""All turns of one method: place the layers, warm up, train every turn, and say where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice

import torch

from ALPackage import ALStack
from models import parameter_counts
from utils import set_seed

from ..checkpoints.info import RunRecord
from ..checkpoints.resume import checkpoint_errors, describe, network_notes
from ..checkpoints.store import Checkpoint
from ..config.bp_parallel import STAGES, TITLES
from ..config.growth import growth_notes
from ..config.load import method_title
from ..config.spec import RunSpec
from ..report.run_info import RunInfo
from ..report.run_log import RunLog
from ..report.tracker import TrackedTurn
from ..report.utilization import Utilization
from ..trainers.parallel.trainer import ParallelTrainer
from ..trainers.trainer import Trainer
from ..weights.info import KeptRun
from .bp_stages import place_stages
from .failures import told_failures
from .make_trainer import make_trainer
from .placement import Placement, place
from .provenance import collect
from .ranks import Ranks
from .session import Session
from .tasks import LoadedTask, shape_to_json, training_batches
from .turn import train_turn


def train_method(spec: RunSpec, session: Session, resumed: Checkpoint | None) -> None:
    """Train all turns of a method; its log joins the session's, so that an interruption keeps it.

    `resumed`: where an earlier process stopped. Raises UsageError where a device has too little memory.
    """
    if resumed is not None and resumed.info.turn_finished and resumed.info.turn == spec.turns:
        recall(spec, session, resumed)
        return
    with told_failures(spec, session.task):
        # Before anything counts: where the layers go, and whether they run there at all.
        ranks = session.ranks if spec.over_ranks else None
        before = resumed.record.info["devices"] if resumed is not None else ()
        info, placement = rehearse(spec, session.task, ranks, before)
        log = new_log(spec, session, replace(info, run=session.store.run))
        if resumed is not None:
            with checkpoint_errors(resumed):
                log.load(resumed.info.log)
                print("\n".join(describe(resumed, spec, info.devices)), flush=True)
                log.notes += network_notes(resumed, spec)
            log.resumptions += 1
            for turn in session.keeper.missing(log.chosen_epochs()):
                print(f"  note: turn {turn}: the weights of its best epoch so far were not kept", flush=True)

        # Turns that an earlier process finished are in the log already; the one that it was in continues.
        used: Utilization | None = None
        for turn in range(1, spec.turns + 1):
            here = resumed if resumed is not None and resumed.info.turn == turn else None
            if resumed is not None and (turn < resumed.info.turn or (here and here.info.turn_finished)):
                continue
            with session.trackers.turn(tracked_turn(spec, info, turn)):
                used = train_turn(spec, session, log, placement, turn, here)
        # One table is enough: that of the last turn.
        if used is not None:
            print(used.text(), flush=True)


def new_log(spec: RunSpec, session: Session, info: RunInfo) -> RunLog:
    """Return an empty log, which is in the session, and have the run described beside its checkpoints."""
    log = RunLog(spec.out, spec.dataset, spec.model, spec.method, info)
    session.logs.append(log)
    session.store.begin(
        RunRecord(
            dataset=spec.dataset,
            model=spec.model,
            method=spec.method,
            methods_of_run=session.methods_of_run,
            info=info.to_json(),
        )
    )
    session.keeper.begin(
        KeptRun(
            dataset=spec.dataset,
            model=spec.model,
            method=spec.method,
            task=spec.task,
            info=info.to_json(),
            shape=shape_to_json(session.task.shape),
            classes=session.task.data.classes,
            inputs=asdict(session.task.unseen),
        )
    )
    return log


def tracked_turn(spec: RunSpec, info: RunInfo, turn: int) -> TrackedTurn:
    """Return what trackers are told of a turn before it begins."""
    config = {
        **info.config,
        "dataset": spec.dataset,
        "model": spec.model,
        "method": spec.method,
        "turn": turn,
        # Of the turn: the config has the one from which all turns take theirs.
        "seed": spec.seeds[turn - 1],
        "devices": info.devices,
        "threads": info.threads,
    }
    return TrackedTurn(dataset=spec.dataset, model=spec.model, method=spec.method, turn=turn, config=config)


def recall(spec: RunSpec, session: Session, finished: Checkpoint) -> None:
    """Record again what an earlier process has finished."""
    with checkpoint_errors(finished):
        info = replace(RunInfo(**finished.record.info), run=session.store.run)
        log = RunLog(spec.out, spec.dataset, spec.model, spec.method, info)
        log.load(finished.info.log)
        log.write()
    session.logs.append(log)
    print(f"{method_title(spec.method)}: finished before, nothing is left to do", flush=True)


def rehearse(
    spec: RunSpec, task: LoadedTask, ranks: Ranks | None = None, before: Sequence[str] = ()
) -> tuple[RunInfo, Placement | None]:
    """Place the layers, train two batches, print what will run, and return it with the placement.

    Runs on models that are thrown away, so that no method pays for the one-time initialization of libraries. `before`:
    as for `place`.
    """
    seed = spec.seeds[0]
    # Costs are measured as a worker will run: with its threads, and weights as the first turn has them.
    torch.set_num_threads(spec.threads)
    set_seed(seed)
    model = task.build(spec.method)
    layers, (trained, inferred) = len(model), parameter_counts(model)
    placement: Placement | None = None
    if isinstance(model, ALStack):
        batch = next(iter(training_batches(task, "cpu", seed=seed)))
        placement = place(model, batch, spec, ranks, before=before)
    elif ranks is not None and spec.bp_parallel in STAGES:
        placement = place_stages(model, next(iter(training_batches(task, "cpu", seed=seed))), spec, ranks)
    del model  # the trainer makes its own, and two would not fit where one just does
    # Two batches: the second finds everything set up, so what fails here would fail in the run.
    with make_trainer(spec, task, placement, seed, None, ranks) as trainer:
        batches = islice(training_batches(task, trainer.devices[0], seed=seed, epoch=1), 2)
        trainer.train_epoch(batches, lambda step: task.lr, lambda losses: None)

    names = placement.names if placement else [str(device) for device in trainer.devices]
    print(headline(spec, names, layers, trained), flush=True)
    plan = placement.plan if placement else None
    if plan:
        print("\n".join(f"  {line}" for line in plan.text().splitlines()), flush=True)
    growth = growth_notes(spec.config, spec.method, layers)
    for note in growth:
        print(f"  {note}", flush=True)
    info = RunInfo(
        config=spec.resolved,
        seeds=list(spec.seeds),
        train_samples=len(task.data.train),
        parameters_training=trained,
        parameters_inference=inferred,
        threads=spec.threads,
        schedule=spec.schedule if spec.method != "bp" else None,
        devices=names,
        losses={layer: list(losses) for layer, losses in trainer.losses.names.items()},
        loss_titles=trainer.loss_titles,
        plan=plan.to_json() if plan else None,
        network=spec.network,
        provenance=collect(trainer.devices),
        processes=spec.world if spec.over_ranks else 1,
        bp_parallel=spec.bp_parallel if spec.method == "bp" and spec.world > 1 else None,
        notes=[*task.notes, *growth, *_not_exact(spec), *_about_bp(spec, trainer)],
    )
    return info, placement


def _not_exact(spec: RunSpec) -> list[str]:
    """Return why the numbers of a local method are not those of one process, if they are not."""
    if spec.method == "bp" or not spec.over_ranks:
        return []
    notes = []
    if spec.config.wire == "bf16":
        notes.append("wire bf16: rounded between processes, so the numbers are not those of one process")
    if spec.replicated:
        batchnorm = "by the rows of all replicas" if spec.config.sync_batchnorm else "by each replica's own rows"
        notes.append(
            f"stage_replicas {spec.config.stage_replicas}: sums of parts, so the numbers are those of one process but "
            f"for rounding; batch normalization {batchnorm}"
        )
    return notes


def _about_bp(spec: RunSpec, trainer: Trainer) -> list[str]:
    """Return what makes the numbers of BP over ranks other than those of one process."""
    if not isinstance(trainer, ParallelTrainer):
        return []
    way = f"BP: {TITLES[spec.bp_parallel]} over {spec.world} ranks"
    return [f"{way}: {note}" for note in trainer.notes]


def headline(spec: RunSpec, devices: Sequence[str], layers: int, parameters: int) -> str:
    """Return the line that says what a method will run on."""
    how = "1 thread" if spec.threads == 1 else f"{spec.threads} threads"
    if spec.method != "bp":
        how = f"{spec.schedule}, {how} per worker"
    where = ", ".join(dict.fromkeys(devices))
    if spec.method != "bp" and spec.over_ranks and spec.config.wire != "fp32":
        how += f", {spec.config.wire} between processes" + " (not exact)" * (spec.config.wire == "bf16")
    if spec.replicated:
        but = "" if spec.config.sync_batchnorm else ", and batch normalization by each replica's rows"
        how += f", replicas {', '.join(map(str, spec.config.stage_replicas or ()))} (exact but for rounding{but})"
    if spec.method == "bp" and spec.over_ranks:
        where = f"{where}, {TITLES[spec.bp_parallel]} over {spec.world} ranks"
        how += " per rank"
    alone = " (this process alone, the others wait)" if spec.world > 1 and not spec.over_ranks else ""
    return f"{method_title(spec.method)}: {layers} layers on {where}{alone}; {how}; {parameters:,} parameters"
