"""What the tests of BP over ranks run on every rank: functions that a new process can import."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from ALPackage import Snapshot
from models import Block, BPModel, build_text, build_vision
from training.trainers.bp import BPTrainer
from training.trainers.parallel.ddp import DataParallelTrainer
from training.trainers.parallel.group import Group
from training.trainers.parallel.pipeline import PipelineTrainer
from training.trainers.parallel.stage import shapes_between
from training.trainers.parallel.upcoming import Upcoming

CLASSES, WORDS, SEED = 4, 30, 3
#: Rows of the batches, over and over: uneven ones, one with as many rows as ranks, and one with fewer.
SIZES = (8, 7, 5, 3, 1)
STEPS = 20
LONGEST = 6
OPTIONS: dict[str, Any] = {"weight_decay": 0.01, "label_smoothing": 0.1, "seed": SEED}


def text_model(model: str, dtype: torch.dtype, dropout: float = 0.2) -> BPModel:
    """Return a small text model without batch normalization."""
    torch.manual_seed(SEED)
    vectors = torch.randn(WORDS, 8)
    built = build_text(model, "bp", n_classes=CLASSES, vectors=vectors, x_hid=6, dropout=dropout, n_heads=2)
    assert isinstance(built, BPModel)
    return built.to(dtype)


def vision_model() -> BPModel:
    """Return a small model with batch normalization."""
    torch.manual_seed(SEED)
    built = build_vision("vgg", "bp", n_classes=CLASSES, in_channels=1, image_size=16, width=0.125)
    assert isinstance(built, BPModel)
    return built


def texts(steps: int = STEPS, longest: int = LONGEST) -> list[tuple[Any, Tensor]]:
    """Return batches of texts of changing length."""
    made = torch.Generator().manual_seed(SEED)
    batches: list[tuple[Any, Tensor]] = []
    for step in range(steps):
        rows = SIZES[step % len(SIZES)]
        positions = longest - step % 3
        lengths = torch.randint(1, positions + 1, (rows,), generator=made)
        tokens = torch.randint(1, WORDS, (rows, positions), generator=made)
        tokens = tokens.masked_fill(torch.arange(positions) >= lengths[:, None], 0)
        batches.append(((tokens, lengths), torch.randint(CLASSES, (rows,), generator=made)))
    return batches


def images(*sizes: int) -> list[tuple[Any, Tensor]]:
    """Return batches of noise with so many rows."""
    made = torch.Generator().manual_seed(SEED)
    return [
        (torch.randn(rows, 1, 16, 16, generator=made), torch.randint(CLASSES, (rows,), generator=made))
        for rows in sizes
    ]


def rate(step: int) -> float:
    """Return a learning rate that follows the step."""
    return 1e-2 / (1 + step)


def train(trainer: BPTrainer, batches: list[Any]) -> dict[str, Any]:
    """Train on the batches and return the losses, and the state by layer."""
    seen: list[float] = []
    taken = Snapshot()
    trainer.train_epoch([*batches, taken], rate, lambda losses: seen.append(float(losses["loss"])))
    return {"losses": seen, "state": taken.state, "skipped": trainer.skipped}


def alone(model: BPModel, batches: list[Any], **options: Any) -> dict[str, Any]:
    """Train in one process."""
    with BPTrainer(model, lr=0.0, **{**OPTIONS, **options}) as trainer:
        return train(trainer, batches)


def together(model: BPModel, batches: list[Any], **options: Any) -> dict[str, Any] | None:
    """Train in all ranks; only rank 0 says how it went."""
    trainer = DataParallelTrainer(model, Group(), lr=0.0, **{**OPTIONS, **options})
    if not trainer.group.leads:
        trainer.serve(Upcoming(lambda epoch, done: batches[done:], len(batches)))
        return None
    with trainer:
        return train(trainer, batches)


def in_stages(
    way: str, model: BPModel, stages: list[int], batches: list[Any], positions: int | None = None, **options: Any
) -> dict[str, Any] | None:
    """Train in a pipeline; only rank 0 says how it went."""
    group = Group()
    if not group.leads:
        for weight in model.parameters():
            torch.nn.init.normal_(weight)
    shapes = shapes_between(model, batches[0][0], positions)
    trainer = PipelineTrainer(
        model, group, way=way, stages=stages, shapes=shapes, positions=positions, lr=0.0, **{**OPTIONS, **options}
    )
    if not group.leads:
        trainer.serve()
        return None
    with trainer:
        return train(trainer, batches)


def texts_in_stages(cases: list[tuple[str, str, list[int], float]]) -> list[dict[str, Any] | None]:
    """Train text models of changing length, padded."""
    return [
        in_stages(way, text_model(model, torch.float64, dropout), stages, staged_texts(dropout, padded=False), LONGEST)
        for way, model, stages, dropout in cases
    ]


def staged_texts(dropout: float, padded: bool) -> list[tuple[Any, Tensor]]:
    """Return batches for a pipeline, with dropout only those that its micro-batches divide; padded as it does it."""
    batches = [batch for batch in texts(10) if not dropout or len(batch[1]) % 4 == 0]
    if not padded:
        return batches
    return [((F.pad(tokens, (0, LONGEST - tokens.shape[1])), lengths), labels) for (tokens, lengths), labels in batches]


def images_in_stages(way: str, stages: list[int], bad: int) -> dict[str, Any] | None:
    """Train a model with batch normalization on odd batches, one of which is not finite and left out."""
    batches = images(9, 8, 3, 5)
    batches[bad][0][-1] = float("nan")
    return in_stages(way, vision_model(), stages, batches, on_nan="skip")


def resumed_in_stages(way: str, stages: list[int], state: Any, step: int) -> dict[str, Any] | None:
    """Go on from a state that rank 0 has."""
    model, group, batches = text_model("transformer", torch.float64, 0.0), Group(), staged_texts(0.0, padded=False)
    shapes = shapes_between(model, batches[0][0], LONGEST)
    trainer = PipelineTrainer(model, group, way=way, stages=stages, shapes=shapes, positions=LONGEST, lr=0.0, **OPTIONS)
    if not group.leads:
        trainer.serve()
        return None
    with trainer:
        trainer.load(step, trainer.losses.state(), state)
        found = train(trainer, batches[step:])
        trainer.model.eval()
        return found | {"logits": next(trainer._predict([batches[0][0]]))[0].detach()}


def flat_model() -> BPModel:
    """Return a model whose first layer has no weights."""
    torch.manual_seed(SEED)
    built = torch.nn.Linear(256, CLASSES)
    return BPModel([Block("flat", torch.nn.Flatten(), lambda width: torch.nn.Linear(256, width))], built)


def images_behind_a_stage_without_weights() -> dict[str, Any] | None:
    """Train a model whose first stage has nothing to train."""
    return in_stages("1f1b", flat_model(), [0, 1], images(8, 5))


def texts_in_ddp(models: list[str], dtype: torch.dtype) -> list[dict[str, Any] | None]:
    """Train text models, whose weights are drawn anew in each rank but in rank 0."""
    found = []
    for name in models:
        model = text_model(name, dtype)
        if dist.get_rank():
            for weight in model.parameters():
                torch.nn.init.normal_(weight)
        found.append(together(model, texts()))
    return found


def images_in_ddp() -> tuple[dict[str, Any] | None, float]:
    """Train a model with batch normalization on few rows, and return the running mean of this rank besides."""
    model = vision_model()
    found = together(model, images(8, 5, 3, 2))
    means = [buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    return found, float(means[0].sum())


def bad_batch_in_ddp(bad: int) -> dict[str, Any] | None:
    """Train with a row of a batch that is not finite, in the last rank's part, and skip that step in all ranks."""
    batches = images(6, 6, 6)
    batches[bad][0][-1] = float("nan")
    return together(vision_model(), batches, on_nan="skip")


def resumed_in_ddp(
    state: Any, step: int, batches: list[Any], dtype: torch.dtype = torch.float64
) -> dict[str, Any] | None:
    """Go on from a state that rank 0 has."""
    trainer = DataParallelTrainer(text_model("transformer", dtype), Group(), lr=0.0, **OPTIONS)
    if not trainer.group.leads:
        trainer.serve(Upcoming(lambda epoch, done: batches[done:], len(batches)))
        return None
    with trainer:
        trainer.load(step, trainer.losses.state(), state)
        return train(trainer, batches[step:])


def interrupted_in_ddp(step: int) -> tuple[dict[str, Any] | None, ...]:
    """Train without an interruption, up to a step, and on from there."""
    batches = texts()
    whole = together(text_model("transformer", torch.float32), batches)
    begun = together(text_model("transformer", torch.float32), batches[:step])
    return whole, begun, resumed_in_ddp(begun and begun["state"], step, batches, torch.float32)


def fails_in_a_rank() -> str:
    """Have the second rank fail in a step, and return what each rank raises."""
    batches = images(4, 4)
    if dist.get_rank() == 1:
        batches[1] = (batches[1][0][:, :, :3], batches[1][1])
        batches[1] = (torch.zeros(4, 7), batches[1][1])
    try:
        together(vision_model(), batches)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def doubled(tree: Any) -> Any:
    """Return the tree with float64 numbers."""
    return tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)
