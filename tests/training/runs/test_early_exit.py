"""What a turn records about early exit: the figures that the library gives for the same network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, EarlyExit, to_al
from training import experiment
from training.report.run_info import RunInfo
from training.report.run_log import RunLog
from training.runs import turn
from training.runs.early_exit import BUDGETS, measure_exits
from training.runs.memory import PeakMemory
from training.trainers.al import ALTrainer

Labeled = list[tuple[Tensor, Tensor]]


def batches(count: int, seed: int) -> Labeled:
    draw = torch.Generator().manual_seed(seed)
    centers = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    which = torch.randint(20, (count, 40), generator=draw)
    return list(zip(centers[which] + 0.6 * torch.randn(count, 40, 6, generator=draw), which % 5, strict=True))


def trainer(schedule: str = "sequential") -> ALTrainer:
    blocks = [nn.Sequential(nn.Linear(x, 32), nn.BatchNorm1d(32), nn.Tanh()) for x in (6, 32, 32)]
    stack = to_al(blocks, 5, example=torch.randn(2, 6), lr=1e-2, code_dim=8, bridge="linear")
    return ALTrainer(stack, schedule, threads=1)


@pytest.mark.parametrize("schedule", ["sequential", "continuous"])
def test_the_figures_are_those_of_the_library(schedule: str) -> None:
    validation, test = batches(5, 2), batches(4, 3)
    with trainer(schedule) as one:
        one.train_epoch(batches(30, 4), lambda step: 1e-2, lambda losses: None)
        found, notes = measure_exits(one, validation, test, turn=2, epoch=7)
        accuracies = one.accuracies(test)
        assert found is not None
        assert notes == []
        assert (found.turn, found.epoch) == (2, 7)
        assert [depth.accuracy for depth in found.depths] == pytest.approx(accuracies, abs=1e-3)
        assert found.depths[-1].work == 1
        points = EarlyExit.curve(one.stack, validation, test)
        assert [(p.work, p.accuracy) for p in found.curve] == [pytest.approx(p[1:], abs=1e-4) for p in points]
        assert [budget.budget for budget in found.budgets] == list(BUDGETS)
        for within in found.budgets:
            rule = EarlyExit.calibrate(one.stack, validation, budget=within.budget)
            assert within.validation is not None
            assert within.validation.work <= within.budget
            right = [rule.predict(one.stack, x).prediction.argmax(1) == labels for x, labels in validation]
            assert within.validation.accuracy == pytest.approx(100 * float(torch.cat(right).float().mean()), abs=1e-3)
            assert rule.threshold == tuple(math.inf if one is None else one for one in within.thresholds)
            left = torch.cat([rule.predict(one.stack, x).depth for x, _ in test])
            assert within.shares == pytest.approx([float((left == k).float().mean()) for k in (1, 2, 3)], abs=1e-5)


def test_it_is_in_the_json(tmp_path: Path) -> None:
    with trainer() as one:
        found, _ = measure_exits(one, batches(2, 2), batches(2, 3), turn=1, epoch=1)
    assert found is not None
    info = RunInfo(
        config={},
        seeds=[1],
        train_samples=1,
        parameters_training=1,
        parameters_inference=1,
        threads=1,
        schedule="sequential",
        devices=["cpu"] * 3,
        losses={name: ["assoc", "ae"] for name in one.losses.names},
    )
    log = RunLog(tmp_path, "digits", "vgg", "al", info)
    log.finish_turn(1, early_exit=found.model_dump())
    assert json.loads(log.json_path.read_text())["early_exit"] == [found.model_dump()]
    again = RunLog(tmp_path, "digits", "vgg", "al", info)
    again.load(json.loads(json.dumps(log.state())))
    again.write()
    assert json.loads(log.json_path.read_text())["early_exit"] == [found.model_dump()]


def test_a_single_layer_has_no_exits() -> None:
    stack = to_al([nn.Linear(6, 8)], 5, example=torch.randn(2, 6))
    with ALTrainer(stack, "sequential") as one:
        assert measure_exits(one, batches(1, 2), batches(1, 3), turn=1, epoch=1) == (None, [])


def test_what_cannot_be_measured_is_noted_and_ends_nothing() -> None:
    def layer(x: int, y: int) -> AL:
        return AL(ENC(nn.Linear(x, 6), nn.Linear(6, 5)), AE(nn.Linear(y, 5), nn.Linear(5, y)))

    with ALTrainer(ALStack([layer(6, 1), layer(6, 5)]), "sequential") as one:
        found, notes = measure_exits(one, batches(1, 2), batches(1, 3), turn=1, epoch=1)
    assert found is None
    assert notes == [
        "early exit: not measured: the prediction of depth 1 for 40 rows is shape (40, 1); expected logits "
        "(B, C) of at least two classes"
    ]


@pytest.mark.usefixtures("one_thread", "no_pictures")
def test_its_memory_is_not_that_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    class Peak(PeakMemory):
        mb = property(lambda self: 9.0 if measured else 1.0)  # type: ignore[assignment]

    def take(*arguments: Any) -> int:
        measured.append(arguments)
        return real(*arguments)

    real = turn.take_best
    monkeypatch.setattr(turn, "PeakMemory", Peak)
    monkeypatch.setattr(turn, "take_best", take)
    line = f"digits vgg --method al --limit-train 60 --set width=0.05 --set epochs=1 --out {tmp_path}"
    assert experiment.main("vision", line.split()) == 0
    info = json.loads((tmp_path / "digits_vgg_al.json").read_text())
    assert len(measured) == 1
    assert info["peak_memory_mb"] == 1.0
