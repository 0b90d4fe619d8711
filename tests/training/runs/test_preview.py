"""`--plan` says what a run would do and how long it would take; it trains nothing and leaves nothing."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ALPackage.placement import Plan
from ALPackage.placement.cost import LayerCost
from ALPackage.stage.crew import crew
from tests.training.specs import make_spec
from training import experiment
from training.config.schema import Task
from training.runs import expectation
from training.runs.expectation import _simulated
from training.runs.placement import Placement
from training.runs.preview import proposals
from training.trainers.trainer import Trainer

from ..launched import SMALL, launch

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {
    "vision": "--set width=0.05 --set epochs=2 --set train_batch_size=16",
    "text": "--set embedding_dim=50 --set x_hid=8 --set y_hid=8 --set epochs=2 --set batch_size=16 --set max_len=12",
}


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectation, "BUDGET", 0.01)


def planned(task: Task, text: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that a command prints with --plan."""
    argv = shlex.split(f"{QUICK[task]} --data-root {root} --out {out} {text} --plan")
    assert experiment.main(task, argv) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


@pytest.mark.parametrize(
    ("task", "text"), [("vision", "tinyImageNet vgg --workers 2"), ("text", "agnews transformer --workers 5 -r 3")]
)
def test_a_plan_of_both_methods(
    task: Task, text: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = planned(task, text, datasets, tmp_path / "out", capsys)
    assert " training, " in lines[0]
    assert not (tmp_path / "out").exists()
    titles = [line for line in lines if line.startswith(("AL: ", "BP: "))]
    assert titles[0].startswith("AL: 4 layers on cpu; continuous, 1 thread per worker; ")
    assert titles[1].startswith("BP: 5 layers on cpu; ")
    about = [line.strip().partition(":")[0] for line in lines if line.startswith("  ")]
    assert about.count("parameters") == about.count("memory") == about.count("expected") == 2
    parameters = next(line for line in lines if "parameters: " in line).partition(": ")[2].split(", ")
    assert len([one for one in parameters if " " in one]) == 4
    workers = 2 if task == "vision" else 5
    assert any(f"{workers} workers share all layers: estimated ceiling " in line for line in lines)
    ceilings = next(line for line in lines if "ceiling for 1, 2, 4, 8 workers" in line)
    assert ceilings.partition(": ")[2].startswith("1.00x, ")
    turns = "1 turn of 2 epochs" if task == "vision" else "3 turns of 2 epochs"
    assert lines[-2].startswith("expected training time per epoch: AL ")
    assert turns in lines[-2]


@pytest.mark.parametrize(
    ("text", "costs"),
    [
        ("vgg --method bp", False),
        ("vgg --method al --schedule sequential --resume --trace t.json", True),
        ("vggal --schedule al-fm", True),
    ],
)
def test_any_command_can_be_planned_and_no_weight_moves(
    text: str,
    costs: bool,
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates: set[float] = set()
    train = Trainer.train_epoch

    def watched(self: Trainer, batches: Any, lr: Any, progress: Any) -> Any:
        rates.add(lr(0))
        return train(self, batches, lr, progress)

    monkeypatch.setattr(Trainer, "train_epoch", watched)
    monkeypatch.chdir(tmp_path)
    lines = planned("vision", f"tinyImageNet {text}", datasets, tmp_path / "out", capsys)
    assert any(line.split()[:3] == ["layer", "forward", "backward"] for line in lines) == costs
    assert sum("expected: " in line for line in lines) == 1
    assert list(tmp_path.iterdir()) == []
    assert rates == {0.0}


def test_what_cannot_run_is_refused_as_without_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment.main("vision", shlex.split("digits vgg --plan --set 'bp_gpu_list=[\"cuda:77\"]'")) == 2
    assert capsys.readouterr().err.startswith("error: bp_gpu_list has 1 entry")


def placed(*costs: tuple[float, float]) -> Placement:
    """Return layers that two workers share."""
    devices = [torch.device("cpu")] * len(costs)
    layers = tuple(LayerCost(str(number), *times) for number, times in enumerate(costs))
    return Placement(devices, Plan(layers, tuple(devices), tuple(crew(devices, workers=2)), 2.0))


def test_proposals_say_what_other_numbers_of_processes_could_bring() -> None:
    plan = placed((1.0, 3.0), (0.5, 0.5)).plan
    assert plan is not None
    plan = replace(plan, ranks=(0, 1))
    spec = make_spec(world=2, workers=1)
    first, *found = proposals(plan, spec, 1e9)
    assert first == (
        "connections: 1,000 MB/s; estimated ceilings over one worker, with what is sent, where each process has a core:"
    )
    # These layers have no gradients, so averaging costs nothing: every process does its part of everything.
    expected = [
        "what is set: 1.25x",
        "2 processes: stage_replicas [2], 2.00x",
        "3 processes: stage_replicas [3], 3.00x",
    ]
    assert found == [f"  {line}" for line in expected]
    heavy = replace(plan, costs=tuple(replace(cost, gradients=10**10) for cost in plan.costs))
    assert proposals(heavy, spec, 1e9)[2:] == ["  2 processes: no better", "  3 processes: no better"]


def test_replicas_take_their_part_of_the_time() -> None:
    placement = placed((1.0, 2.0), (1.0, 2.0))
    assert placement.plan is not None
    halved = replace(placement, plan=replace(placement.plan, replicas=(2, 2)))
    spec = make_spec()
    assert _simulated(spec, halved, 5, 0.0) == pytest.approx(_simulated(spec, placement, 5, 0.0) / 2)


@pytest.mark.slow
def test_a_plan_over_processes_measures_with_all_of_them(tmp_path: Path) -> None:
    with launch(tmp_path, 2, f"{SMALL} --set epochs=1 --plan --out {tmp_path / 'out'}") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert second.text == ""
    assert "2 processes: " in first.text
    assert "3 processes: " in first.text
    assert sum("expected: " in line for line in first.text.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_more_batches_than_measured_take_what_the_simulation_says() -> None:
    spec = make_spec()
    even = placed((1.0, 2.0), (1.0, 2.0))
    assert _simulated(spec, even, 5, 0.0) == pytest.approx(1 + 5 * 3)
    assert _simulated(spec, even, 5.5, 0.0) == pytest.approx(1 + 5.5 * 3)
    assert _simulated(spec, even, 10_000, 0.0) == pytest.approx(1 + 10_000 * 3)
    # The loader is a third thread on two cores.
    assert _simulated(spec, even, 1000, 3.0) == pytest.approx(1000 * (6 + 3) / 2, rel=0.02)
    assert _simulated(spec, None, 7.5, 9.0) == 7.5
