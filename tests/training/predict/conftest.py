"""Runs of networks of the user's own, with every method, whose stacks grow; made once for the tests of this folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.vision.digits import load
from models import registry
from training import experiment

NETWORKS = """
import torch
from torch import nn


def cnn(shape, width=6):
    return {
        "one": nn.Conv2d(shape.channels, width, 3, padding=1), "norm": nn.BatchNorm2d(width), "act": nn.ReLU(),
        "pool": nn.MaxPool2d(4), "two": nn.Conv2d(width, 8, 3, padding=1), "end": nn.ReLU(),
        "mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "classes": nn.Linear(8, shape.n_classes),
    }


def wide(shape):
    return cnn(shape, 7)


def long(shape):
    return {"zero": nn.Conv2d(shape.channels, shape.channels, 1), **cnn(shape)}


class Words(nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(vectors.clone(), freeze=False)

    def forward(self, tokens, lengths):
        return self.table(tokens), lengths


class Each(nn.Linear):
    def forward(self, words, lengths):
        return super().forward(words), lengths


class Last(nn.Module):
    def forward(self, states, lengths):
        return states[torch.arange(len(lengths)), lengths - 1]


def words(shape):
    return [Words(shape.vectors), Each(shape.vectors.shape[1], 6), Last(), nn.Linear(6, shape.n_classes)]
"""
METHODS = ("al", "bp", "ce", "scl", "predsim", "deinfo", "infopro")
IMAGES = (
    "digits nets.py:cnn --limit-train 160 --set epochs=3 --set grow=[1,1] --set train_batch_size=16 --set base_lr=0.01 "
    "--set objectives.scl.projector=mlp --set objectives.ce.depth=2 --schedule sequential --out out --method "
)
TEXTS = (
    "agnews nets.py:words --set epochs=2 --set batch_size=8 --set pretrained_model=none --set embedding_dim=8 "
    "--set max_len=6 --schedule sequential --out out --method al --data-root "
)


@pytest.fixture(scope="session")
def trained(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of the networks, their results in `out`, and the digits of the test set as pictures."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(NETWORKS)
    (folder / "pictures").mkdir()
    for number, (image, label) in enumerate(zip(*load(folder, 8).test, strict=True)):
        Image.fromarray(image[0].numpy()).save(folder / "pictures" / f"{number:03}_{label}.png")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setattr("training.report.gallery.draw", lambda *_: [])
        patched.setattr("training.report.gallery.Gallery.draw_now_and_then", lambda *_: None)  # pages after each epoch
        patched.setattr(registry, "_NETWORKS", {})
        patched.setattr("sys.path", [*sys.path])
        patched.chdir(folder)
        assert experiment.main("vision", shlex.split(IMAGES + ",".join(METHODS))) == 0
        assert experiment.main("text", shlex.split(f"{TEXTS}{datasets}")) == 0
    return folder


@pytest.fixture
def own(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, as the current one; what a test registers or makes importable is forgotten after it."""
    monkeypatch.chdir(trained)
    monkeypatch.setattr(registry, "_NETWORKS", {})
    monkeypatch.setattr("sys.path", [*sys.path])
    return trained
