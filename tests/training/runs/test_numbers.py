"""Training that comes to NaN, or to the end of the memory, through the command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from ALPackage import ENC
from training import experiment
from training.config.schema import Task

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")
VISION = "tinyImageNet vgg --set width=0.05 --set epochs=2 --set train_batch_size=8"
WILD = "--set base_lr=1e30"


def command(task: Task, text: str, root: Path, out: Path) -> int:
    return experiment.main(task, shlex.split(f"--data-root {root} --out {out} {text}"))


@pytest.mark.parametrize("schedule", ["sequential", "al-fm", "continuous"])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    schedule: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", f"{VISION} {WILD} --method al --schedule {schedule}", datasets, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: layer conv_1: the associated loss is ")
    assert "on batch 1 (the first is 0), at a learning rate of " in error
    assert "--set on_nan=skip" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("checkpoints/*/*/*")), "a checkpoint of weights that are spoiled"


def test_bp_says_the_same(datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("vision", f"{VISION} {WILD} --method bp", datasets, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: BP: the loss is ")
    assert "on batch " in error


def test_the_checkpoints_before_it_are_kept_and_can_be_gone_on_with(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch of the second epoch is bad: the run stops, and with on_nan=skip it goes on."""
    from data.batches import Batches

    original = Batches.__iter__

    def spoiled(self: Batches) -> Any:
        for number, (x, labels) in enumerate(original(self), start=self.done):
            yield (x * float("nan") if self.seed is not None and (self.epoch, number) == (2, 3) else x), labels

    monkeypatch.setattr(Batches, "__iter__", spoiled)
    assert command("vision", f"{VISION} --method al", datasets, tmp_path) == 2
    per_epoch = 6
    assert f"on batch {per_epoch + 3} (the first is 0)" in capsys.readouterr().err
    (manifest,) = tmp_path.glob("checkpoints/*/*/turn*.json")
    assert manifest.stem == f"turn1-epoch1-batch{per_epoch}"
    assert command("vision", f"{VISION} --method al --resume --set on_nan=skip", datasets, tmp_path) == 0
    assert "turn 1, epoch 2: conv_1 skipped 1 batches whose loss was not finite" in capsys.readouterr().out
    block = json.loads((tmp_path / "tinyImageNet_vgg_al.json").read_text())
    assert len([note for note in block["notes"] if "skipped 1 batches" in note]) == 4
    assert all(block["final_epoch"][0][f"assoc_loss_{layer}"] is not None for layer in range(1, 5))


@pytest.mark.parametrize("method", ["al", "bp"])
def test_where_every_batch_is_bad_the_run_with_skip_still_ends(
    method: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", f"{VISION} {WILD} --method {method} --set on_nan=skip", datasets, tmp_path) == 0
    assert "skipped 6 batches whose loss was not finite" in capsys.readouterr().out
    json.loads(
        (tmp_path / f"tinyImageNet_vgg_{method}.json").read_text(), parse_constant=lambda word: pytest.fail(word)
    )


@pytest.mark.parametrize("when", [0, 40])
def test_memory_that_is_not_there_is_one_line(
    when: int, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the costs are measured, and while it trains."""
    forward, calls = ENC.forward, [0]

    def greedy(self: ENC, *inputs: Any) -> Any:
        calls[0] += 1
        if calls[0] > when:
            torch.empty(2**55)
        return forward(self, *inputs)

    monkeypatch.setattr(ENC, "forward", greedy)
    assert command("vision", f"{VISION} --method al --schedule sequential --workers 1", datasets, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: layer conv_")
    assert "ran out of memory" in error
    assert "lower train_batch_size, test_batch_size or width" in error
    assert error.count("\n") == 1


def test_bp_too(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.BPModel.forward", lambda self, x: torch.empty(2**55))
    assert command("vision", f"{VISION} --method bp", datasets, tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: BP ran out of memory; ")
