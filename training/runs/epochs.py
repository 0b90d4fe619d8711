"""The epochs of one turn: train, leave checkpoints, measure, record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from torch import Tensor
from tqdm import tqdm

from data import Split
from data.batches import Batches

from ..checkpoints.store import Checkpoint, CheckpointFacts, Position
from ..report.record import Record
from ..report.tensorboard import TensorBoardWriter
from ..report.utilization import Utilization, measure_utilization
from ..trainers.means import Mark, State
from ..trainers.trainer import Trainer, cosine_lr
from .placement import Placement
from .provenance import versions
from .setting import Setting, resolved_config


@dataclass
class Turn:
    """One turn of a method in this process, and its checkpoints."""

    setting: Setting
    trainer: Trainer
    record: Record
    number: int
    seed: int
    train_time: float = 0.0
    """Seconds of training since the turn began, in whichever process."""
    position: Position | None = None
    """Of the newest checkpoint."""

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take over the state of the checkpoint, which is of this turn."""
        self.trainer.load(checkpoint.state)
        checkpoint.state.clear()  # it is as large as the model and its moments
        self.train_time = checkpoint.facts.train_time
        self.position = checkpoint.facts.position

    def save(self, position: Position, state: State, train_time: float) -> None:
        """Leave a checkpoint."""
        setting, results = self.setting, self.record.results[-1]
        facts = CheckpointFacts(
            dataset=setting.arguments.dataset,
            model=setting.arguments.model,
            method=setting.method,
            methods=setting.together,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **asdict(position),
            step=state["step"],
            turns=setting.arguments.turns,
            epochs=setting.config.epochs,
            batches_per_epoch=len(setting.batches(self.trainer.devices[0])),
            train_time=train_time,
            threads=setting.threads,
            config=resolved_config(setting.arguments, setting.config, setting.job),
            versions=versions(),
            results=results.memory(),
        )
        setting.store.save(facts, state)
        self.position = position

    def finish(self) -> None:
        """Note in the newest checkpoint that the turn has been measured and recorded to its end."""
        if self.position is not None:
            results = self.record.results[-1].memory()
            self.setting.store.amend(self.position, turn_finished=True, results=results)

    def marked(self, batches: Batches, epoch: int) -> Iterator[tuple[Any, Tensor] | Mark]:
        """Yield the batches with marks for checkpoints between them, and end early where the user wants to stop."""
        begun, base = time.perf_counter(), self.train_time
        every, per_epoch = self.setting.config.checkpoint_every, len(batches.bounds)

        def mark(position: Position) -> Mark:
            return Mark(lambda state: self.save(position, state, base + time.perf_counter() - begun))

        for batch, item in enumerate(batches, start=batches.done + 1):
            yield item
            stop = self.setting.stopping.requested
            due = every is not None and ((epoch - 1) * per_epoch + batch) % every == 0
            if self.setting.config.checkpoint_keep and (stop or due or batch == per_epoch):
                yield mark(Position(self.number, epoch, batch))
            if stop:
                return


def run_turn(turn: Turn, board: TensorBoardWriter | None, placed: Placement | None) -> Utilization | None:
    """Train one model for all epochs, measuring and recording after each; return how AL's workers were used.

    A signal ends it after the step at hand, with a checkpoint. After `go_on` it does what is left.
    """
    setting, trainer = turn.setting, turn.trainer
    config, job, method, data = setting.config, setting.job, setting.method, setting.job.data
    results = turn.record.results[-1]
    per_epoch = len(setting.batches(trainer.devices[0]))
    lr = cosine_lr(job.lr, job.end_lr, config.epochs * per_epoch, config.warmup)
    first, done = (turn.position.epoch, turn.position.batch) if turn.position else (1, 0)
    begun, own_time = trainer.step, 0.0
    used: Utilization | None = None
    for epoch in range(first, config.epochs + 1):
        batches = setting.batches(trainer.devices[0], seed=turn.seed, epoch=epoch, done=done)
        done = 0
        with (
            setting.stopping.deferred(),
            _Progress(f"{method} turn {turn.number} epoch {epoch}", batches) as progress,
        ):
            losses, seconds = trainer.train(turn.marked(batches, epoch), lr, progress)
            if setting.stopping.requested:
                setting.store.wait()
        for name, count in trainer.skipped.items():
            note = f"turn {turn.number}, epoch {epoch}: {name} skipped {count} batches whose loss was not finite"
            results.notes.append(note)
            print(note, flush=True)
        turn.train_time += seconds
        own_time += seconds

        def measure(split: Split) -> list[float]:
            return trainer.accuracies(Batches(split, job.test_batch_size, job.transform, device=trainer.devices[0]))

        train_acc, val_acc, test_acc = measure(data.probe), measure(data.val), measure(data.test)
        if not setting.store.written:
            setting.store.wait()  # an earlier run's results go only once this one can be gone on with
        results.add(
            turn.number,
            epoch,
            train_acc=train_acc[-1],
            val_acc=val_acc[-1],
            test_acc=test_acc[-1],
            train_time=turn.train_time,
            test_acc_depth=test_acc if method == "al" else None,
            **losses,
        )
        samples = sum(stop - start for start, stop in batches.bounds[batches.done :])
        speed = samples / seconds
        timed = f"; {seconds:.1f} s, {speed:,.0f} samples/s" if samples else " (its training was over)"
        print(
            f"{method} turn {turn.number} epoch {epoch}/{config.epochs}: train {train_acc[-1]:.2f} %, "
            f"val {val_acc[-1]:.2f} %, test {test_acc[-1]:.2f} %{timed}",
            flush=True,
        )
        if placed is not None and trainer.step > begun:
            costs = [(cost.name, cost.total) for cost in placed.plan.costs] if placed.plan else None
            used = measure_utilization(
                trainer.usage(),
                own_time,
                costs=costs,
                batches=trainer.step - begun,
                schedule=config.schedule,
                at_once=placed.plan.at_once if placed.plan else math.inf,
            )
        if board is not None:
            board.losses(method, turn.number, trainer.step, losses, trainer.layers)
            accuracies = {"train": train_acc[-1], "val": val_acc[-1], "test": test_acc[-1]}
            board.epoch(method, turn.number, epoch, accuracies=accuracies, samples_per_second=speed, utilization=used)
        turn.record.draw_now_and_then()
    return used


class _Progress:
    """A bar per epoch with losses and samples/s; silent where stderr is no terminal.

    Losses are read from the device twice a second at most, because each reading makes the host wait.
    """

    def __init__(self, label: str, batches: Batches) -> None:
        sizes = [stop - start for start, stop in batches.bounds]
        self._sizes = iter(sizes[batches.done :])
        self._bar = tqdm(
            total=len(batches.split),
            initial=sum(sizes[: batches.done]),
            desc=label,
            unit=" samples",
            leave=False,
            disable=None,
        )
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
