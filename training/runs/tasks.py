"""What differs between the tasks: how the data is loaded and transformed, and the shape that the models get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ALPackage import ALStack
from ALPackage.network import Network
from data import Dataset
from data.batches import Batches, Transform
from data.dataset import digest
from models import BPModel, ImageShape, TextShape, Training, build_model
from models.registry import RegistryError
from utils import set_seed

from ..config.load import length_limit, model_settings, objective_settings, resolve_model
from ..config.own_network import own_network
from ..config.schema import Config, Method, TextConfig, VisionConfig
from ..errors import ConfigError, UsageError

if TYPE_CHECKING:
    from data.text.unseen import Texts
    from data.vision.unseen import Pictures


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A data set that is ready for batches, and the builder of the model that learns it."""

    data: Dataset
    transform: Transform
    batch_size: int
    test_batch_size: int
    lr: float
    end_lr: float
    shape: ImageShape | TextShape
    """What the models take in, and how many classes there are."""
    build: Callable[[Method], ALStack | BPModel]
    """Draws the initial weights from torch's process-wide generator."""
    unseen: Pictures | Texts
    """What inputs of no data set go through before the models, as those of this one have."""
    resolved: dict[str, Any]
    """What "auto" and null in the config came to mean."""
    notes: list[str]
    network: Network | None = None
    """How a network of the user's is cut into layers; None for a model that is registered."""


def training_batches(task: LoadedTask, device: torch.device | str, **order: int) -> Batches:
    """Return the training batches on `device`; `order`: seed, epoch, and how many of its batches are done."""
    return Batches(task.data.train, task.batch_size, task.transform, device=device, **order)


def load_task(config: Config, dataset: str, model: str, root: Path, limit_train: int | None) -> LoadedTask:
    """Load the data set and return the task. Raises DataError or UsageError."""
    if isinstance(config, VisionConfig):
        task = _vision(config, dataset, model, root, limit_train)
    else:
        task = _text(config, dataset, model, root, limit_train)
    return _with_network(task, config, model)


def _with_network(task: LoadedTask, config: Config, model: str) -> LoadedTask:
    """Return the task with the cut of a network of the user's, which is known once the data's shape is."""
    own = own_network(model)
    if own is None:
        return task
    set_seed(config.seed + 1)  # as the first turn will build it
    try:
        network = own.read(task.shape, config)
    except RegistryError as error:
        raise UsageError(str(error)) from None
    # With the config, so that a run that is resumed, or compared, has to have the same layers.
    resolved = {**task.resolved, "network": {name: list(blocks) for name, blocks in network.blocks.items()}}
    return replace(task, network=network, resolved=resolved, notes=[*task.notes, *network.notes])


def builder(config: Config, model: str, shape: ImageShape | TextShape) -> Callable[[Method], ALStack | BPModel]:
    """Return the function that builds `model` for a method."""
    settings, own = model_settings(config, model), own_network(model)
    lr, code_dim = (config.base_lr, config.ae_dim) if isinstance(config, VisionConfig) else (config.lr, config.y_hid)
    training = Training(
        lr=lr, weight_decay=config.weight_decay, label_smoothing=config.label_smoothing, code_dim=code_dim
    )

    def build(method: Method) -> ALStack | BPModel:
        objective = None if method == "bp" else objective_settings(config, method)
        try:
            return build_model(model, method, shape, settings, objective=objective, training=training)
        except RegistryError as error:
            raise UsageError(str(error)) from None
        except ValueError as error:
            if own is None:
                raise
            raise UsageError(f"network {own.typed}: {error}") from None  # it does not suit the method

    return build


def samples_at_once(config: Config) -> int:
    """Return how many samples a batch of an evaluation has."""
    return config.test_batch_size if isinstance(config, VisionConfig) else 4 * config.batch_size


def _vision(config: VisionConfig, dataset: str, model: str, root: Path, limit_train: int | None) -> LoadedTask:
    from data.vision.augment import VisionTransform, channel_stats, default_augmentation
    from data.vision.load import load_vision
    from data.vision.unseen import Pictures

    data = load_vision(
        dataset,
        root=root,
        image_size=config.image_size,
        val_fraction=config.val_fraction,
        seed=config.seed,
        limit_train=limit_train,
    )
    if config.in_channels == 3:
        data = _in_color(data)
    images = data.train.inputs
    assert isinstance(images, torch.Tensor)
    channels, size = images.shape[1], images.shape[2]
    if config.in_channels not in ("auto", channels):
        raise ConfigError(f'in_channels: got {config.in_channels}, but {dataset} has {channels}; give that, or "auto"')
    augmentation = default_augmentation(dataset) if config.augmentation == "auto" else config.augmentation
    chosen, notes = resolve_model(config, model)
    shape = ImageShape(n_classes=len(data.classes), channels=channels, size=size)
    mean, std = channel_stats(data.train)
    assert data.stored_size is not None
    return LoadedTask(
        data=data,
        transform=VisionTransform(mean, std, augmentation),
        batch_size=config.train_batch_size,
        test_batch_size=samples_at_once(config),
        lr=config.base_lr,
        end_lr=config.end_lr,
        shape=shape,
        build=builder(config, model, shape),
        unseen=Pictures(
            channels=channels,
            stored_size=data.stored_size,
            size=size,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
        ),
        resolved={
            "augmentation": augmentation,
            **chosen,
            "in_channels": channels,
            "image_size": size,
            "data_digest": digest(data),
        },
        notes=[*notes, *data.notes],
    )


def _in_color(data: Dataset) -> Dataset:
    """Return the data set with gray images repeated in three channels: configs are shared among data sets."""
    splits = {}
    for name in ("train", "val", "test", "probe"):
        split = getattr(data, name)
        if split.inputs.shape[1] != 1:
            return data
        splits[name] = replace(split, inputs=split.inputs.expand(-1, 3, -1, -1))  # a view: it takes no memory
    note = f"{data.name}: the gray images are repeated in three channels, as in_channels is 3"
    return replace(data, **splits, notes=[*data.notes, note])


def _text(config: TextConfig, dataset: str, model: str, root: Path, limit_train: int | None) -> LoadedTask:
    from data.text.embeddings import load_vectors, random_vectors
    from data.text.load import load_text, trim
    from data.text.tokenization import resolve_backend
    from data.text.unseen import Texts
    from data.text.vector_search import find_file

    max_len = length_limit(config, dataset)
    chosen, notes = resolve_model(config, model)
    if config.pretrained_model != "none":
        find_file(config.embedding_dim, root, config.pretrained_model)  # a mistake in it is told before texts are read
    data = load_text(
        dataset,
        root=root,
        max_len=max_len,
        min_len=config.min_len,
        vocab_size=config.vocab_size,
        val_fraction=config.val_fraction,
        seed=config.seed,
        limit_train=limit_train,
        backend=config.text_backend,
    )
    if config.pretrained_model != "none":
        vectors, vector_notes = load_vectors(
            data.vocabulary,
            config.embedding_dim,
            root=root,
            seed=config.seed,
            backend=config.text_backend,
            model=config.pretrained_model,
        )
    else:
        vectors, vector_notes = random_vectors(data.vocabulary, config.embedding_dim, seed=config.seed), []

    shape = TextShape(n_classes=len(data.classes), vectors=vectors, max_len=max_len)
    return LoadedTask(
        data=data,
        transform=trim,
        batch_size=config.batch_size,
        test_batch_size=samples_at_once(config),
        lr=config.lr,
        end_lr=config.end_lr,
        shape=shape,
        build=builder(config, model, shape),
        unseen=Texts(
            backend=resolve_backend(config.text_backend).name, max_len=max_len, vocabulary=tuple(data.vocabulary)
        ),
        resolved={
            "max_len": max_len,
            "vocabulary": len(data.vocabulary),
            "data_digest": digest(data, vectors),
            **chosen,
        },
        notes=[*notes, *data.notes, *vector_notes],
    )


def shape_to_json(shape: ImageShape | TextShape) -> dict[str, Any]:
    """Return a shape for another process, which builds the same network from it; of word vectors only their shape."""
    if isinstance(shape, ImageShape):
        return asdict(shape)
    return {"n_classes": shape.n_classes, "vectors": list(shape.vectors.shape), "max_len": shape.max_len}


def shape_from_json(written: dict[str, Any]) -> ImageShape | TextShape:
    """Return the shape that was written; word vectors have no values, as the process that reads the words has them."""
    if "vectors" not in written:
        return ImageShape(**written)
    return TextShape(**{**written, "vectors": torch.zeros(written["vectors"])})
