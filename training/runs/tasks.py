"""What differs between the tasks: how the data is loaded and transformed, and how the models are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ALPackage import ALStack
from data import Dataset
from data.batches import Transform
from data.dataset import digest
from models import DEFAULT_BRIDGE, BPModel, build_text, build_vision

from ..config.load import length_limit, resolve_heads
from ..config.schema import Config, TextConfig, VisionConfig
from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Job:
    """A data set, ready to be iterated over, and the builder of the model that learns it."""

    data: Dataset
    transform: Transform
    batch_size: int
    test_batch_size: int
    lr: float
    end_lr: float
    build: Callable[[str], ALStack | BPModel]
    """Draws the initial weights from torch's process-wide generator."""
    resolved: dict[str, Any]
    """What "auto" and null in the config came to mean."""
    notes: list[str]


def load_job(config: Config, dataset: str, model: str, root: Path, limit_train: int | None) -> Job:
    """Load the data set and return the job. Raises DataError or ConfigError."""
    if isinstance(config, VisionConfig):
        return _vision(config, dataset, model, root, limit_train)
    return _text(config, dataset, model, root, limit_train)


def _local(config: Config, lr: float) -> dict[str, Any]:
    """Return what the AL form needs beside the network."""
    return {
        "association": config.association,
        "temperature": config.temperature,
        "lr": lr,
        "weight_decay": config.weight_decay,
        "label_smoothing": config.label_smoothing,
        "codes": config.codes,
        "auto_encoder": config.auto_encoder,
    }


def _vision(config: VisionConfig, dataset: str, model: str, root: Path, limit_train: int | None) -> Job:
    from data.vision.augment import VisionTransform, channel_stats, default_augmentation
    from data.vision.load import load_vision

    data = load_vision(
        dataset,
        root=root,
        image_size=config.image_size,
        val_fraction=config.val_fraction,
        seed=config.seed,
        limit_train=limit_train,
    )
    images = data.train.inputs
    assert isinstance(images, torch.Tensor)
    channels, size = images.shape[1], images.shape[2]
    if config.in_channels not in ("auto", channels):
        raise ConfigError(f'in_channels: got {config.in_channels}, but {dataset} has {channels}; give that, or "auto"')
    augmentation = default_augmentation(dataset) if config.augmentation == "auto" else config.augmentation
    bridge = DEFAULT_BRIDGE[model] if config.bridge == "auto" else config.bridge

    def build(method: str) -> ALStack | BPModel:
        return build_vision(
            model,
            method,
            n_classes=len(data.classes),
            in_channels=channels,
            image_size=size,
            width=config.width,
            act=config.act,
            head_act=config.act if config.head_act == "auto" else config.head_act,
            enc_dim=config.enc_dim,
            ae_dim=config.ae_dim,
            bridge=bridge,
            cut=config.cut,
            shortcut=config.shortcut,
            **_local(config, config.base_lr),
        )

    return Job(
        data=data,
        transform=VisionTransform(*channel_stats(data.train), augmentation),
        batch_size=config.train_batch_size,
        test_batch_size=config.test_batch_size,
        lr=config.base_lr,
        end_lr=config.end_lr,
        build=build,
        resolved={
            "augmentation": augmentation,
            "bridge": bridge,
            "in_channels": channels,
            "image_size": size,
            "data_digest": digest(data),
        },
        notes=data.notes,
    )


def _text(config: TextConfig, dataset: str, model: str, root: Path, limit_train: int | None) -> Job:
    from data.text.embeddings import load_vectors, random_vectors
    from data.text.load import load_text, trim

    max_len = length_limit(config, dataset)
    notes: list[str] = []
    heads = 1
    if model == "transformer":
        heads, notice = resolve_heads(config.n_heads, config.embedding_dim)
        notes += [notice] if notice else []
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
    if config.pretrained_model == "glove":
        vectors, vector_notes = load_vectors(
            data.vocabulary, config.embedding_dim, root=root, seed=config.seed, backend=config.text_backend
        )
    else:
        vectors, vector_notes = random_vectors(data.vocabulary, config.embedding_dim, seed=config.seed), []

    def build(method: str) -> ALStack | BPModel:
        return build_text(
            model,
            method,
            n_classes=len(data.classes),
            vectors=vectors,
            x_hid=config.x_hid,
            y_hid=config.y_hid,
            n_heads=heads,
            n_layers=config.n_layers,
            act=config.act,
            bridge=config.bridge,
            reading=config.reading,
            cut=config.cut,
            dropout=config.dropout,
            word_dropout=config.word_dropout,
            **_local(config, config.lr),
        )

    return Job(
        data=data,
        transform=trim,
        batch_size=config.batch_size,
        test_batch_size=4 * config.batch_size,
        lr=config.lr,
        end_lr=config.end_lr,
        build=build,
        resolved={"max_len": max_len, "vocabulary": len(data.vocabulary), "data_digest": digest(data, vectors)}
        | ({"n_heads": heads} if model == "transformer" else {}),
        notes=[*notes, *data.notes, *vector_notes],
    )
