"""`--tracker` from end to end: what a module of a user's own is told, and that nothing it does changes the run."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.errors import UsageError
from training.report.run_log import RunLog
from training.runs.progress import ProgressBar

from ..report.test_tensorboard import scalars
from ..test_experiment import command, rows

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")

#: A tracker that writes down its calls; {more} is what it does besides when it logs.
RECORDER = """
import json, os
from pathlib import Path

FILE = Path({file!r})

def _write(*call):
    with FILE.open("a") as file:
        file.write(json.dumps(call) + "\\n")

def init(project, name, config):
    _write("init", project, name, config)
    return object()

def log(values, step):
    _write("log", step, values)
    {more}

def finish():
    _write("finish")
"""
MEDDLE = "import random, numpy, torch; random.seed(3); numpy.random.seed(3); torch.manual_seed(3); os.chdir('/')"
#: 43 samples are left to train on: batches of 16, 16 and 11.
STEPS = (3, 6)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a tracker that can be imported; its calls are in `calls.jsonl`."""
    (tmp_path / "modules").mkdir()
    write(tmp_path, tmp_path / "modules" / "live_recorder.py")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield "live_recorder"
    sys.modules.pop("live_recorder", None)


def write(folder: Path, path: Path, more: str = "") -> None:
    path.write_text(RECORDER.format(file=str(folder / "calls.jsonl"), more=more))


def calls(folder: Path) -> list[list[Any]]:
    """Return the calls so far, and forget them."""
    text = (folder / "calls.jsonl").read_text()
    (folder / "calls.jsonl").unlink()
    return [json.loads(line) for line in text.splitlines()]


def test_every_turn_of_every_method_is_a_run_with_the_figures_of_the_table(
    module: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", f"tinyImageNet vgg -r 2 --seed 5 --tracker {module}", datasets, tmp_path) == 0
    assert capsys.readouterr().err == ""
    told = iter(calls(tmp_path))
    for method, turn in itertools.product(("al", "bp"), (1, 2)):
        kind, project, name, config = next(told)
        assert (kind, project, name) == ("init", "associated-learning", f"tinyImageNet_vgg_{method}_turn{turn}")
        saved = json.loads((tmp_path / f"tinyImageNet_vgg_{method}.json").read_text())
        own = {"dataset": "tinyImageNet", "model": "vgg", "method": method, "turn": turn, "seed": 5 + turn}
        assert config == {**saved["config"], **own, "devices": saved["devices"], "threads": 1}
        table = rows(tmp_path / f"tinyImageNet_vgg_{method}.csv", without=())[2 * (turn - 1) : 2 * turn]
        for row, step in zip(table, STEPS, strict=True):
            kind, at, values = next(told)
            assert (kind, at) == ("log", step)
            expected = {"epoch": "epoch", "train_time": "train_time"}
            expected |= {f"accuracy/{split}": f"{split}_acc" for split in ("train", "val", "test")}
            if method == "al":
                layers = ["conv_1", "conv_2", "conv_3", "conv_4"]
                expected |= {
                    f"{loss}/{layer}": f"{loss}_{n}"
                    for loss in ("assoc_loss", "ae_loss")
                    for n, layer in enumerate(layers, 1)
                }
                expected |= {f"accuracy_by_depth/{n}": f"test_acc_depth_{n}" for n in range(1, 5)}
                assert 0 < values["utilization"] <= 100
            else:
                expected |= {"loss": "loss"}
                assert "utilization" not in values
            assert [values[key] for key in expected] == pytest.approx(
                [float(row[column]) for column in expected.values()], rel=1e-3, abs=1e-4
            )
            assert values["samples_per_second"] > 0
            more = {key for key in values if key.startswith("busy/")} | {"samples_per_second", "utilization"}
            assert set(values) - more == set(expected)
        assert next(told) == ["finish"]
    assert list(told) == []


def test_a_text_model_and_a_file_as_tracker_with_tensorboard_beside_it(datasets: Path, tmp_path: Path) -> None:
    write(tmp_path, tmp_path / "mine.py")
    line = f"agnews lstm --method bp --tracker {tmp_path}/mine.py --tracker tensorboard"
    assert command("text", line, datasets, tmp_path / "out") == 0
    told = calls(tmp_path)
    assert [kind for kind, *_ in told] == ["init", "log", "log", "finish"]
    (board,) = (tmp_path / "out" / "tensorboard" / "agnews_lstm").iterdir()
    assert [value for _, value in scalars(board)["bp/turn_1/loss"]] == pytest.approx(
        [values["loss"] for _, _, values in told[1:3]]
    )


def test_a_given_folder_is_the_one_for_tensorboard(datasets: Path, tmp_path: Path) -> None:
    line = f"tinyImageNet vgg --method bp --tracker tensorboard --tensorboard {tmp_path}/board"
    assert command("vision", line, datasets, tmp_path / "out") == 0
    assert "bp/turn_1/loss" in scalars(tmp_path / "board")
    assert not (tmp_path / "out" / "tensorboard").exists()


@pytest.mark.slow
def test_a_tracker_that_meddles_changes_no_number(datasets: Path, tmp_path: Path) -> None:
    """It reseeds every generator and goes elsewhere after each epoch; the results are where they were, bit for bit."""
    write(tmp_path, tmp_path / "meddler.py", MEDDLE)
    line = "tinyImageNet vgg -r 2"
    assert command("vision", line, datasets, tmp_path / "without") == 0
    here = os.getcwd()
    out = os.path.relpath(tmp_path / "with")
    assert command("vision", f"{line} --tracker {tmp_path}/meddler.py", datasets, Path(out)) == 0
    assert os.getcwd() == here
    assert len(calls(tmp_path)) == 4 * 4
    for method in ("al", "bp"):
        tables = [rows(tmp_path / folder / f"tinyImageNet_vgg_{method}.csv") for folder in ("without", "with")]
        assert tables[0] == tables[1]


def test_an_interrupted_run_is_finished_and_a_resumed_one_goes_on_with_the_steps(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tmp_path / "mine.py")
    line = f"tinyImageNet vgg --method al --tracker {tmp_path}/mine.py --tracker tensorboard"
    seen, advance = itertools.count(1), ProgressBar.__call__

    def strike(self: Any, losses: Any) -> None:
        advance(self, losses)
        if next(seen) == 5:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "__call__", strike)
    assert command("vision", line, datasets, tmp_path / "out") == 130
    before = calls(tmp_path)
    assert [kind for kind, *_ in before] == ["init", "log", "finish"]
    assert command("vision", f"{line} --resume", datasets, tmp_path / "out") == 0
    after = calls(tmp_path)
    assert [kind for kind, *_ in after] == ["init", "log", "finish"]
    # Not the config: which worker gets which layer follows measured times.
    assert before[0][1:3] == after[0][1:3], "the same name, so that a tracker can tell what belongs together"
    assert [before[1][1], after[1][1]] == [3, 6]
    assert after[1][2]["epoch"] == 2
    (board,) = (tmp_path / "out" / "tensorboard" / "tinyImageNet_vgg").iterdir()
    assert [step for step, _ in scalars(board)["al/turn_1/ae_loss/conv_1"]] == [3, 6]
    # A finished run has nothing to tell.
    assert command("vision", f"{line} --resume", datasets, tmp_path / "out") == 0
    assert not (tmp_path / "calls.jsonl").exists()


def test_a_tracker_that_fails_costs_a_note_and_a_run_that_fails_is_finished(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, tmp_path / "full.py", "raise OSError('no space left')")
    line = f"tinyImageNet vgg --tracker {tmp_path}/full.py"
    assert command("vision", line, datasets, tmp_path / "out") == 0
    note = f"note: --tracker {tmp_path}/full.py: log failed (OSError: no space left); the run goes on without it"
    assert capsys.readouterr().out.splitlines().count(note) == 1
    assert [kind for kind, *_ in calls(tmp_path)] == ["init", "log", "log", "finish"] * 2

    def full(self: RunLog) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(RunLog, "write", full)
    assert command("vision", f"{line} --method bp", datasets, tmp_path / "out") == 2
    assert capsys.readouterr().err == "error: the disk is full\n"
    assert [kind for kind, *_ in calls(tmp_path)] == ["init", "finish"]


def test_the_time_that_a_tracker_takes_is_not_training_time(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tmp_path / "slow.py", "import time; time.sleep(0.5)")
    line = f"tinyImageNet vgg --method bp --tracker {tmp_path}/slow.py"
    assert command("vision", line, datasets, tmp_path / "out") == 0
    first, second = (float(row["train_time"]) for row in rows(tmp_path / "out/tinyImageNet_vgg_bp.csv", without=()))
    assert second - first < 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os", "--tracker os: this module is not a tracker: it lacks init(project=, name=, config=), log("),
        ("wandbb", '--tracker wandbb: there is no module of that name; did you mean "wandb"?'),
    ],
)
def test_a_module_that_is_no_tracker_is_refused_before_the_data_is_read(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", f"tinyImageNet vgg --tracker {name}", tmp_path / "none", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()
