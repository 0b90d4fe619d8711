"""What is typed with --set and read by nothing is said; what something reads is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import registry
from training.config.arguments import parse
from training.config.schema import Task
from training.config.unread import unread


def notes(line: str, task: Task = "vision") -> list[str]:
    given = parse(task, line.split())
    return unread(task, given.model, given.methods, given.overrides)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "digits vgg --method scl --set temperature=0.3",
            "temperature is a setting of al, which is not run; objectives.scl.temperature is scl's",
        ),
        ("digits vgg --method bp --set temperature=0.3", "temperature is a setting of al, which is not run"),
        (
            "digits vgg --method al --set objectives.ce.depth=2",
            "objectives.ce has the settings of ce, which is not run",
        ),
        ('digits vgg --method al --set objectives={"ce":{"depth":2}}', "objectives.ce has the settings of ce"),
        ("digits vgg --set network_layers=2", "a setting of a network of your own (module:function), and the model"),
        ("digits vgg --set wire=bf16", "wire is about several processes, and this is one; torchrun starts more"),
        ("digits vgg --set shortcut=stride", "shortcut is a setting of resnet, which is not run"),
    ],
)
def test_a_key_that_nothing_reads_is_said(line: str, says: str) -> None:
    (note,) = notes(line)
    assert note.startswith(f"--set {line.rpartition('--set ')[2]}: it changes nothing; ")
    assert says in note


@pytest.mark.parametrize(
    "line",
    [
        "digits vgg --set temperature=0.3",
        "digits vgg --method ce,scl --set objectives.scl.temperature=0.3 --set epochs=2 --set ae_dim=8 --set width=2",
        'digits vgg --method al,ce --set objectives={"ce":{"depth":2}}',
        "digits resnet --method bp --set shortcut=stride --set compile=true",
    ],
)
def test_a_key_that_something_reads_is_not(line: str) -> None:
    assert notes(line) == []


def test_several_processes_read_what_is_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert notes("digits vgg --set wire=bf16") == []


def test_a_network_of_the_user_s_reads_its_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_NETWORKS", {})
    monkeypatch.chdir(tmp_path)
    Path("nets.py").touch()
    assert notes("digits nets.py:cnn --set network_layers=2") == []
    assert "width is a setting of vgg, resnet, which are not run" in notes("digits nets.py:cnn --set width=2")[0]
