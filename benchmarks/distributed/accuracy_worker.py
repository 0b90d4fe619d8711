"""One process of a training: `python -m benchmarks.distributed.accuracy_worker <job as JSON>`.

All methods get the same batches, in the same order, the same learning rates and, for BP, the same initial weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ALPackage import ALStack, make_schedule
from benchmarks.pipeline.delayed import DelayedStage
from benchmarks.pipeline.timing import Job, meet
from benchmarks.pipeline.workload import Batch, Part, arguments
from data.batches import Batches
from models import adamw
from training.config.load import load_config
from training.runs.make_trainer import training_batches
from training.runs.tasks import LoadedTask, load_task
from training.trainers.trainer import cosine_lr
from utils import set_seed

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {"vision": "cvconfig.json", "text": "nlpconfig.json"}
Rate = Callable[[int], float]


def main() -> None:
    """Do the job, and print the accuracy on the validation split in percent: of 2BW on the last process."""
    job: Job = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    config = load_config(job["task"], ROOT / CONFIGS[job["task"]], job["settings"])
    task = load_task(config, job["dataset"], job["model"], ROOT / "datasets", job["limit_train"])
    set_seed(job["seed"])
    steps = job["epochs"] * len(training_batches(task, "cpu"))
    rate = cosine_lr(task.lr, task.end_lr, steps)
    train = {"al": train_al, "bp": train_bp, "2bw": train_delayed}[job["method"]]
    predictions = train(task, job, lambda step: float(rate(step)))  # type: ignore[arg-type]
    print(json.dumps({"val_acc": percent(predictions, list(validation(task)))}), flush=True)


def epochs(task: LoadedTask, job: Job) -> Iterator[Batch]:
    """Yield the batches of all epochs."""
    for epoch in range(1, job["epochs"] + 1):
        yield from training_batches(task, "cpu", seed=job["seed"], epoch=epoch)


def validation(task: LoadedTask) -> Iterator[Batch]:
    """Yield the validation split in batches."""
    yield from Batches(task.data.val, task.test_batch_size, task.transform)


def percent(predictions: list[Tensor], batches: list[Batch]) -> float | None:
    """Return how many of the predictions are right; None without any."""
    if not predictions:
        return None
    right = sum(int((one.argmax(1) == labels).sum()) for one, (_, labels) in zip(predictions, batches, strict=True))
    return 100 * right / sum(len(labels) for _, labels in batches)


def train_al(task: LoadedTask, job: Job, rate: Rate) -> list[Tensor]:
    """Train the AL form; any schedule gives these numbers."""
    stack = task.build("al").train()
    assert isinstance(stack, ALStack)
    with make_schedule("sequential", stack, threads=1, seed=job["seed"]) as schedule:
        for _ in schedule.run(epochs(task, job), lr=rate):
            pass
    stack.eval()
    with torch.no_grad():
        return [stack.inference(x) for x, _ in validation(task)]


def train_bp(task: LoadedTask, job: Job, rate: Rate) -> list[Tensor]:
    """Train the BP form with the gradient of every batch at the newest weights."""
    model = Part(_layers(task))
    optimizer = adamw(model.parameters(), lr=task.lr, weight_decay=0.0)
    for step, (x, labels) in enumerate(epochs(task, job)):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        features, others = arguments(x)
        F.cross_entropy(model(features, **others), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    with torch.no_grad():
        return [model(features, **others) for features, others in (arguments(x) for x, _ in validation(task))]


def train_delayed(task: LoadedTask, job: Job, rate: Rate) -> list[Tensor]:
    """Train the BP form over processes with a delay of one step."""
    meet(job)
    make_optimizer = partial(adamw, lr=task.lr, weight_decay=0.0)
    stage = DelayedStage(_layers(task), job["cut"], job["micro"], make_optimizer, rate)
    for _ in stage.run(epochs(task, job)):
        pass
    stage.part.eval()
    predictions = list(stage.predict(validation(task)))
    dist.destroy_process_group()
    return predictions


def _layers(task: LoadedTask) -> list[Any]:
    model = task.build("bp").train()
    assert not isinstance(model, ALStack)
    return list(model.layers.values())


if __name__ == "__main__":
    main()
