"""What a process that gets its weights from rank 0 builds: the shipped networks without memory, and others whole."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ALPackage import ALStack
from models import ImageShape, TextShape
from models.shapes import Shape
from tests.allocated import Allocated
from training.config import read_command
from training.config.schema import Task
from training.runs import follow
from training.runs.tasks import shape_to_json

IMAGES = ImageShape(n_classes=10, channels=1, size=16)
NETWORK = """
from torch import nn


def net(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
"""


class MadeError(Exception):
    """Ends what a rank does when it makes its schedule."""


def built(
    monkeypatch: pytest.MonkeyPatch, task: Task, text: str, shape: Shape, places: list[str]
) -> tuple[ALStack, int]:
    """Return the stack that rank 1 gives to its schedule, and the bytes that it has allocated until then."""
    given: list[ALStack] = []

    def make(_: str, stack: ALStack, **__: Any) -> None:
        given.append(stack)
        raise MadeError

    monkeypatch.setattr(follow, "make_schedule", make)
    command = read_command(task, shlex.split(text))
    launch = SimpleNamespace(rank=1)
    ranks: Any = SimpleNamespace(launch=launch, devices=["cpu", "cpu"], describe=lambda names: None)
    where = [0, *[1] * (len(places) - 1)]
    order = {"shape": shape_to_json(shape), "devices": places, "ranks": where, "threads": 1, "seed": 0}
    with Allocated() as allocated, pytest.raises(MadeError):
        follow._serve(command, {**order, "method": command.arguments.methods[0]}, ranks)
    return given[0], allocated.bytes


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("vision", "digits vgg --method al"),
        ("vision", "digits resnet --method infopro"),
        ("text", "imdb lstm --method ce"),
    ],
)
def test_a_shipped_network_is_built_without_memory(monkeypatch: pytest.MonkeyPatch, task: Task, text: str) -> None:
    """At full size, with a vocabulary of 30 000 words: it would be megabytes."""
    shape = IMAGES if task == "vision" else TextShape(n_classes=2, vectors=torch.zeros(30_000, 300))
    layers = 5 if "resnet" in text else 4
    stack, size = built(monkeypatch, task, text, shape, ["cpu", "cpu:1", *["cpu"] * (layers - 2)])
    assert size == 0
    assert sum(one.nbytes for one in stack.parameters()) > 10e6
    assert all(one.is_meta for layer in stack for one in (*layer.parameters(), *layer.buffers()))


def test_a_network_of_the_users_is_built_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its function may do anything, such as read values."""
    (tmp_path / "nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    stack, _ = built(monkeypatch, "vision", "digits nets.py:net --method al", IMAGES, ["cpu", "cpu:1"])
    assert not any(one.is_meta for one in (*stack.parameters(), *stack.buffers()))
    assert stack.placement == [torch.device("cpu"), torch.device("cpu", 1)]
