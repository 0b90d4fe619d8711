"""One turn of a method: a fresh model, trained for all epochs, measured and recorded after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ALPackage import Snapshot
from ALPackage.devices import available_cores
from ALPackage.stage.trace import Trace
from data import Split
from data.batches import Batches

from ..checkpoints.info import CheckpointInfo, Position
from ..checkpoints.resume import checkpoint_errors
from ..checkpoints.store import Checkpoint
from ..config.growth import Stage, stage_at
from ..config.spec import RunSpec
from ..report.excerpt import timeline
from ..report.run_log import RunLog
from ..report.timeline import write_trace
from ..report.tracker import EpochFigures
from ..report.utilization import Utilization, measure_utilization
from ..trainers.losses import MeanLosses
from ..trainers.trainer import Trainer, cosine_lr
from .early_exit import measure_exits
from .make_trainer import make_trainer
from .memory import PeakMemory
from .placement import Placement
from .progress import ProgressBar
from .session import Session
from .tasks import training_batches

#: Saves a checkpoint: called with the position and the snapshot once the state of every layer has been taken.
Save = Callable[[Position, Snapshot], None]


def train_turn(
    spec: RunSpec, session: Session, log: RunLog, placement: Placement | None, turn: int, resumed: Checkpoint | None
) -> Utilization | None:
    """Train one model for all epochs and return how its workers were used, if it has any.

    `resumed`: a checkpoint of this turn, after which the rest is done. A signal ends the turn after the step at hand,
    with a checkpoint. The model lives in this call only, so that a turn never meets the model of the one before.
    """
    config, task, seed = spec.config, session.task, spec.seeds[turn - 1]
    # A timeline of every turn would be long, and all of them look alike.
    trace = Trace() if spec.trace is not None and turn == 1 else None
    used: Utilization | None = None
    # The peak covers the building of the model too: on a GPU that is where a run first fails.
    with (
        session.progress.turn(spec.method),
        PeakMemory(placement.here(0) if placement else log.info.devices) as memory,
        make_trainer(spec, task, placement, seed, trace, session.ranks if spec.over_ranks else None) as trainer,
    ):
        device = trainer.devices[0]  # batches are made where the first layer needs them
        first, done, train_time = 1, 0, 0.0
        # Weights, moments, sums and step come from the checkpoint, so the rest is computed as if nothing had happened.
        if resumed is not None:
            with checkpoint_errors(resumed):
                trainer.load(resumed.info.step, resumed.info.losses, resumed.layers)
            if resumed.info.batch == resumed.info.batches_per_epoch:  # the epoch is trained, and not yet measured
                session.keeper.take(resumed.layers)
            resumed.layers.clear()  # as large as the model and its moments
            first, done, train_time = resumed.info.epoch, resumed.info.batch, resumed.info.train_time

        # The learning rate follows the step, over all epochs, wherever this process starts.
        per_epoch = len(training_batches(task, device))
        lr = cosine_lr(task.lr, task.end_lr, config.epochs * per_epoch, config.warmup)
        # Checks and the capture of CUDA graphs are not training: they happen before the first clock starts.
        trainer.prepare(next(iter(training_batches(task, device, seed=seed, epoch=1))))
        stage: Stage | None = None

        for epoch in range(first, config.epochs + 1):
            session.progress.begin_epoch()
            if stage != (stage := stage_at(config, len(spec.layers), epoch)):
                trainer.begin(stage)
                # How the workers are used is told of one stage: another one has other layers, with other costs.
                began, first_step, before, computed, used = epoch, trainer.step, train_time, 0.0, None
            batches = training_batches(task, device, seed=seed, epoch=epoch, done=done)
            done = 0  # only the first epoch of a resumed run starts in the middle
            save = partial(save_checkpoint, spec, session, log, trainer, per_epoch, train_time, time.perf_counter())
            # A signal in here lets the step at hand end; its checkpoint has to be on the disk before the process goes.
            label = f"{spec.method} turn {turn} epoch {epoch}"
            on_cores = time.process_time()
            with session.shutdown.deferred(), ProgressBar(label, batches, session.progress) as bar:
                losses, seconds = trainer.train_epoch(with_snapshots(spec, session, batches, turn, save), lr, bar)
                if session.shutdown.requested:
                    session.store.wait()
            train_time += seconds
            computed += time.process_time() - on_cores
            # Measuring comes after the clock has stopped, and never changes what is trained.
            accuracies = [
                measure(trainer, session, split) for split in (task.data.probe, task.data.val, task.data.test)
            ]
            # The files of an earlier run are replaced only once this one has a checkpoint to resume from.
            if not session.store.written:
                session.store.wait()
            note_skipped(session, log, trainer, turn, epoch)
            complete = spec.method == "bp" or stage.layers == len(spec.layers)
            if complete and log.is_best(turn, accuracies[1][-1]):
                session.keeper.keep(
                    turn=turn, seed=seed, epoch=epoch, val_acc=accuracies[1][-1], test_acc=accuracies[2]
                )
            log.add(
                turn,
                epoch,
                train_acc=accuracies[0][-1],
                val_acc=accuracies[1][-1],
                test_acc=accuracies[2],
                train_time=train_time,
                losses=losses,
            )
            session.keeper.settle()
            # Of this process alone: the workers of an earlier one have taken their times with them.
            if placement is not None and spec.method != "bp" and complete and trainer.step > first_step:
                done_here = trainer.step - first_step, epoch - began + 1
                used = utilization(spec, trainer, placement, stage, train_time - before, computed, *done_here)
            report_epoch(spec, session, trainer, batches, turn, accuracies, losses, seconds, train_time, used)
            session.gallery.draw_now_and_then(session.logs)
            session.progress.end_epoch(whole=batches.done == 0)

        # What follows is no part of the comparison: BP has nothing to measure there.
        peak = memory.mb
        held_out = (split_batches(trainer, session, split) for split in (task.data.val, task.data.test))
        measured = take_best(session, trainer, turn, config.epochs)
        exits, notes = measure_exits(trainer, *held_out, turn=turn, epoch=measured)

    titles = {f"al-worker-{number}": row.device for number, row in enumerate(used.rows)} if used else {}
    if trace is not None and (shown := timeline(trace, titles)) is not None:
        log.timeline = shown.to_json()
    if not memory.exact:
        notes.append("peak memory: of the process since it began; this system knows no other")
    log.finish_turn(
        turn,
        peak_memory_mb=peak,
        utilization=used.to_json() if used else None,
        early_exit=exits.model_dump() if exits else None,
        notes=notes,
    )
    # From here on --resume goes to the next turn, or has nothing left to do.
    session.store.finish_turn(log.state())
    if trace is not None and spec.trace is not None and used is not None:
        session.gallery.extras += write_trace(trace, spec.trace, title=f"{spec.dataset} {spec.model}", workers=titles)
    return used


def take_best(session: Session, trainer: Trainer, turn: int, epoch: int) -> int:
    """Give local layers the weights that have been kept, and return the epoch of their weights.

    `epoch`: the one after which they are. Nothing is trained afterwards.
    """
    kept = session.keeper.kept(turn)
    if kept is None or kept[0] == epoch or not trainer.take_weights(kept[1]):
        return epoch
    return kept[0]


def with_snapshots(
    spec: RunSpec, session: Session, batches: Batches, turn: int, save: Save
) -> Iterator[tuple[Any, Tensor] | Snapshot]:
    """Yield the batches of an epoch, with a snapshot where a checkpoint is due or the epoch ends; a signal ends it."""
    every, per_epoch = spec.config.checkpoint_every, len(batches.bounds)
    for batch, item in enumerate(batches, start=batches.done + 1):
        yield item
        # Asked after the batch has been handed over: a signal during the batch still gets a checkpoint behind it.
        stop = session.shutdown.requested
        # Counted over the whole turn, so that an interruption does not shift the later checkpoints.
        due = every is not None and ((batches.epoch - 1) * per_epoch + batch) % every == 0
        whole = batch == per_epoch
        if (spec.config.checkpoint_keep and (stop or due or whole)) or (spec.config.keep_best and whole):
            yield Snapshot(partial(save, Position(turn, batches.epoch, batch)))
        if stop:
            return


def save_checkpoint(
    spec: RunSpec,
    session: Session,
    log: RunLog,
    trainer: Trainer,
    per_epoch: int,
    train_time: float,
    begun: float,
    position: Position,
    snapshot: Snapshot,
) -> None:
    """Hand a snapshot to the store, unless there is a number in it that would spoil the run, and to the keeper.

    `train_time`: of the turn before this epoch, which began at `begun`.
    """
    if position.batch == per_epoch:
        session.keeper.take(snapshot.state)
    if not spec.config.checkpoint_keep:
        return
    trainer.check(snapshot)
    info = CheckpointInfo(
        dataset=spec.dataset,
        model=spec.model,
        method=spec.method,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        turn=position.turn,
        epoch=position.epoch,
        batch=position.batch,
        step=snapshot.number or 0,
        turns=spec.turns,
        epochs=spec.config.epochs,
        batches_per_epoch=per_epoch,
        train_time=train_time + time.perf_counter() - begun,
        losses=trainer.losses.state(),
        log=log.state(),
    )
    session.store.save(info, snapshot.state)


def measure(trainer: Trainer, session: Session, split: Split) -> list[float]:
    """Return the accuracy on a split at every depth, in percent."""
    return trainer.accuracies(split_batches(trainer, session, split))


def split_batches(trainer: Trainer, session: Session, split: Split) -> Batches:
    """Return the batches of a split, to predict."""
    task = session.task
    return Batches(split, task.test_batch_size, task.transform, device=trainer.devices[0])


def note_skipped(session: Session, log: RunLog, trainer: Trainer, turn: int, epoch: int) -> None:
    """Note which layers left out batches, with on_nan=skip."""
    for name, count in trainer.skipped.items():
        who = name or "the network"
        note = f"turn {turn}, epoch {epoch}: {who} skipped {count} batches whose loss was not finite"
        log.notes.append(note)
        session.progress.say(note)


def utilization(
    spec: RunSpec,
    trainer: Trainer,
    placement: Placement,
    stage: Stage,
    seconds: float,
    computed: float,
    batches: int,
    epochs: int,
) -> Utilization:
    """Return how the workers have spent the `seconds` in which this process trained, with `computed` s on cores."""
    # The costs are those of layers that train.
    costs = placement.plan.costs if placement.plan and not stage.freezes else None
    ranks, weights = trainer.ranks()
    return measure_utilization(
        trainer.usage(),
        seconds,
        dict(zip(trainer.losses.names, placement.devices, strict=True)),
        schedule=spec.schedule,
        batches=batches,
        epochs=epochs,
        costs=[(cost.name, cost.total) for cost in costs] if costs else None,
        threads=spec.threads,
        cores=available_cores(),
        gpus=torch.cuda.device_count(),
        asked=spec.config.workers,
        computed=computed,
        ranks=ranks,
        weights=weights,
    )


def report_epoch(
    spec: RunSpec,
    session: Session,
    trainer: Trainer,
    batches: Batches,
    turn: int,
    accuracies: list[list[float]],
    losses: MeanLosses,
    seconds: float,
    train_time: float,
    used: Utilization | None,
) -> None:
    """Print the line of an epoch, and tell the trackers."""
    train, val, test = (by_depth[-1] for by_depth in accuracies)
    samples = sum(stop - start for start, stop in batches.bounds[batches.done :])
    speed = samples / seconds
    # A run may have been interrupted after the last batch of an epoch: then there is nothing to time.
    timed = f"; {seconds:.1f} s, {speed:,.0f} samples/s" if samples else " (its training was over)"
    session.progress.say(
        f"{spec.method} turn {turn} epoch {batches.epoch}/{spec.config.epochs}: train {train:.2f} %, val {val:.2f} %, "
        f"test {test:.2f} %{timed}"
    )
    with session.progress.aside():
        session.trackers.epoch(
            EpochFigures(
                epoch=batches.epoch,
                step=trainer.step,
                losses=losses,
                accuracies={"train": train, "val": val, "test": test},
                by_depth=accuracies[2] if "" not in losses else [],  # a network with one loss has one depth
                train_time=train_time,
                samples_per_second=speed,
                utilization=used,
            )
        )
