"""A run whose stack grows: the same numbers however often it is interrupted and whoever runs the layers."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ALPackage import ALStack
from benchmarks.faults.outcome import differences, outcome
from tests.training.checkpoints.test_resume import newest, strike
from training import experiment
from training.checkpoints.store import checkpoint_folder
from training.config.arguments import read_command
from training.config.growth import stage_at
from training.config.schema import VisionConfig
from training.report.curves import chosen
from training.report.saved import read_table
from training.runs.tasks import load_task, training_batches

from ..launched import launch
from ..test_experiment import rows

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")
#: Four batches per epoch; the last stage, in which all train alike, has one epoch.
COMMAND = (
    "digits vgg --method al --set width=0.05 --set enc_dim=16 --set ae_dim=8 --limit-train 60 "
    "--set train_batch_size=16 --set grow=[1,1,2,1] --set epochs=6 --set checkpoint_every=1 --set checkpoint_keep=99"
)
GROWING = VisionConfig(grow=[1, 1, 2, 1], epochs=6)
FROZEN = f"{COMMAND} --set grow_lr=0"


def command(text: str, out: Path) -> int:
    return experiment.main("vision", shlex.split(f"{text} --out {out}"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a traced run with frozen layers that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setattr("training.report.gallery.draw", lambda *_: [])
        assert command(f"{FROZEN} --trace {out / 'trace.json'}", out) == 0
    return out


def al(out: Path) -> dict[str, Any]:
    return {name: value for name, value in outcome(out).items() if name.startswith("digits_vgg_al")}


def state(out: Path, epoch: int, layer: str) -> dict[str, torch.Tensor]:
    """Return the weights, buffers and moments that a layer had at the end of an epoch."""
    folder = next(checkpoint_folder(out, "digits", "vgg", "al").iterdir())
    saved = torch.load(next(folder.glob(f"turn1-epoch{epoch}-batch4.*-{layer}.pt")), weights_only=True)
    moments = saved["optimizer"]["state"]
    found = {f"{number} {name}": value for number, one in moments.items() for name, value in one.items()}
    return {**saved["layer"], **{name: torch.as_tensor(value) for name, value in found.items()}}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_layers_are_added_frozen_and_thawed(whole: Path) -> None:
    """conv_1 trains alone in epoch 1, is frozen up to epoch 5 and thawed in epoch 6; conv_4 begins in epoch 5."""
    first, last = ({e: state(whole, e, layer) for e in range(1, 7)} for layer in ("conv_1", "conv_4"))
    assert all(same(first[1], first[epoch]) for epoch in (2, 3, 4, 5))
    assert not same(first[5], first[6])
    assert all(same(last[1], last[epoch]) for epoch in (2, 3, 4))
    assert set(last[4]) < set(last[5]), "it has no moments before its first step"
    counts = {layer: float(state(whole, 6, layer)["0 step"]) for layer in ("conv_1", "conv_2", "conv_3", "conv_4")}
    assert counts == {"conv_1": 8.0, "conv_2": 8.0, "conv_3": 12.0, "conv_4": 8.0}


def test_the_results_have_no_figures_of_layers_that_are_not_there(whole: Path) -> None:
    path = whole / "digits_vgg_al.csv"
    with open(path, encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for row, layers in zip(table, (1, 2, 3, 3, 4, 4), strict=True):
        for kind in ("assoc_loss", "ae_loss", "test_acc_depth"):
            assert [row[f"{kind}_{n}"] != "" for n in (1, 2, 3, 4)] == [n <= layers for n in (1, 2, 3, 4)]
        assert row["test_acc"] == row[f"test_acc_depth_{layers}"]
    # A frozen layer computes the same accuracy in every epoch.
    assert len({row["test_acc_depth_1"] for row in table[:5]}) == 1
    info = json.loads((whole / "digits_vgg_al.json").read_text())
    best = max((5, 6), key=lambda epoch: float(table[epoch - 1]["val_acc"]))
    assert info["chosen_epoch"] == [best] == list(chosen(read_table(path))["epoch"])
    assert info["test_acc"] == [float(table[best - 1]["test_acc"])]
    # The last stage alone: four batches of an epoch, in which all four layers trained.
    assert {row["layer"] for row in info["utilization"]["layers"] if row["share"] > 0} == set(info["losses"])
    assert any(note.startswith("grow: the stack has 1 layer from epoch 1") for note in info["notes"])
    assert info["timeline"]["layers"][0] == "conv_1"


def test_a_run_that_is_interrupted_while_a_layer_is_frozen_goes_on_bit_for_bit(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batches that are skipped where a loss is not finite, and under another schedule afterwards."""
    with monkeypatch.context() as patched:
        strike(patched, 9, signal.SIGTERM)
        assert command(f"{FROZEN} --set on_nan=skip", tmp_path) == 143
    assert command(f"{FROZEN} --set on_nan=skip --resume --schedule sequential", tmp_path) == 0
    assert rows(tmp_path / "digits_vgg_al.csv") == rows(whole / "digits_vgg_al.csv")
    assert list(differences(al(tmp_path)["digits_vgg_al"], al(whole)["digits_vgg_al"])) == []


@pytest.mark.slow
def test_a_run_that_is_interrupted_in_every_stage_ends_as_one_that_is_not(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part under another schedule, of which the pipeline has batches under way when the signal comes."""
    ways = ["--schedule sequential", "--workers 2", "--schedule sequential", "--schedule al-fm"]
    stopped = []
    for part in range(24):
        with monkeypatch.context() as patched:
            strike(patched, (2, 1, 3, 2)[part % 4], signal.SIGTERM)
            code = command(f"{FROZEN} {'--resume' * (part > 0)} {ways[part % 4]}", tmp_path)
        if code == 0:
            break
        assert code == 143
        stopped.append(newest(checkpoint_folder(tmp_path, "digits", "vgg", "al")).info.position.epoch)
    assert code == 0
    assert {stage_at(GROWING, 4, epoch).layers for epoch in stopped} == {1, 2, 3, 4}, stopped
    assert list(differences(al(tmp_path), al(whole))) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("--set grow=[1,1,1,1]", "grow was [1, 1, 2, 1] and is [1, 1, 1, 1]"),
        ("--set grow_lr=0.5", "grow_lr was 0.0 and is 0.5"),
        ("--set grow=null --set grow_lr=1", "grow was [1, 1, 2, 1] and is null"),
    ],
)
def test_other_growth_is_refused_on_resume(
    changed: str, told: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(f"{FROZEN} --resume {changed}", whole) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_page_is_made_while_the_stack_has_one_layer_and_when_it_has_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # pictures too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for part, batches in enumerate((5, 4)):
        with monkeypatch.context() as patched:
            strike(patched, batches, signal.SIGTERM)
            assert command(f"{FROZEN} {'--resume' * (part > 0)}", tmp_path) == 143
        page = (tmp_path / "digits_vgg.html").read_text(encoding="utf-8")
        assert "Losses of AL are not finite" not in page
        assert not re.search(r"\bnan\b", page, re.IGNORECASE)
        assert json.loads((tmp_path / "digits_vgg_al.json").read_text())["chosen_epoch"] == [part + 1]
        assert (tmp_path / "digits_vgg_depth.png").exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"{FROZEN} --plan", tmp_path) == 0
    told = capsys.readouterr().out
    assert "grow: the stack has 1 layer from epoch 1, 2 from epoch 2" in told
    assert "an epoch in which not all layers train takes less" in told


@pytest.mark.slow
def test_two_processes_leave_what_one_does(whole: Path, tmp_path: Path) -> None:
    """The second one waits for its layers to be added, with frozen ones and without."""
    with launch(tmp_path, 2, f"{FROZEN} --out {tmp_path / 'two'}") as launched:
        first, second = launched.ends(120.0)
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert rows(tmp_path / "two" / "digits_vgg_al.csv") == rows(whole / "digits_vgg_al.csv")
    assert list(differences(al(tmp_path / "two")["digits_vgg_al"], al(whole)["digits_vgg_al"])) == []


@pytest.mark.slow
def test_a_finished_run_is_where_a_deeper_network_begins(datasets: Path, tmp_path: Path) -> None:
    """As the page about growth does it: a Transformer with one layer more, from the checkpoint of a run."""
    line = (
        f"agnews transformer --method al --data-root {datasets} --out {tmp_path} --set embedding_dim=50 --set x_hid=8 "
        "--set y_hid=8 --set batch_size=8 --set max_len=12 --set epochs=1 --set al_layers="
    )
    assert experiment.main("text", shlex.split(f"{line}1")) == 0
    saved = newest(checkpoint_folder(tmp_path, "agnews", "transformer", "al")).layers
    stacks = {}
    for layers in (1, 2):
        config = read_command("text", shlex.split(f"{line}{layers}")).config
        task = load_task(config, "agnews", "transformer", datasets, None)
        stacks[layers] = task.build("al")
    small, large = stacks[1], stacks[2]
    assert isinstance(small, ALStack)
    assert isinstance(large, ALStack)
    assert small.load(saved) == []
    assert large.load(saved) == [large.names[-1]]
    x, _ = next(iter(training_batches(task, "cpu")))
    predictions = [stack.eval().inference_by_depth(x) for stack in (small, large)]
    assert all(map(torch.equal, *predictions))
