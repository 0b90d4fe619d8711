"""A run that is interrupted and gone on with ends as one that is not: weights, moments, tables. CPU, no network."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults.outcome import differences, outcome
from tests.training.checkpoints.test_store import info
from tests.training.specs import make_spec
from training import experiment
from training.checkpoints import store as store_module
from training.checkpoints.info import RunRecord
from training.checkpoints.resume import check_same_run, describe
from training.checkpoints.store import Checkpoint, Store, checkpoint_folder
from training.config.schema import Task
from training.errors import UsageError
from training.report.output import lock_results
from training.runs import resolve, turn
from training.runs.progress import ProgressBar

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")
ROOT = Path(__file__).resolve().parents[3]
VISION = "tinyImageNet vgg --set width=0.05 --set epochs=3 --set train_batch_size=8 --set checkpoint_every=2"
TEXT = (
    "agnews transformer --set embedding_dim=50 --set x_hid=8 --set y_hid=8 --set epochs=3 --set batch_size=8 "
    "--set max_len=12 --set checkpoint_every=2"
)
COMMANDS: dict[Task, str] = {"vision": VISION, "text": TEXT}


def command(task: Task, text: str, root: Path, out: Path) -> int:
    return experiment.main(task, shlex.split(f"--data-root {root} --out {out} {COMMANDS[task]} {text}"))


def newest(folder: Path) -> Checkpoint:
    store = Store(folder, 1, "never")
    found = store.newest()
    store.close()
    assert found is not None
    assert store.notices == []
    return found


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert list(differences(one, two)) == []


def strike(monkeypatch: pytest.MonkeyPatch, after: int, signum: signal.Signals) -> None:
    """Have a signal come while batch number `after` of the run is trained; it is the second one's turn then."""
    call, seen = ProgressBar.__call__, [0]

    def progress(self: Any, losses: Any) -> None:
        call(self, losses)
        seen[0] += 1
        if seen[0] == after:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(ProgressBar, "__call__", progress)


def _renamed(state: Any, part: str, other: str) -> Any:
    """Return the state of a layer with the weights of a part under another name."""
    layer = {name.replace(part, other): value for name, value in state["layer"].items()}
    return {**state, "layer": layer}


@pytest.fixture(scope="module")
def whole(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the runs leave that nobody interrupts."""
    found = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setattr("training.report.gallery.draw", lambda *_: [])
        for task in COMMANDS:
            out = tmp_path_factory.mktemp(task)
            assert command(task, "-r 2", datasets, out) == 0
            found[task] = outcome(out)
    return found


@pytest.mark.parametrize(
    ("task", "signum", "code"),
    [
        ("vision", signal.SIGINT, 130),
        ("text", signal.SIGTERM, 143),
        pytest.param("vision", signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param("text", signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_interrupted_again_and_again_ends_as_one_that_is_not(
    task: Task,
    signum: signal.Signals,
    code: int,
    whole: dict[str, dict[str, Any]],
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every process does a few batches, under another schedule and with other workers than the one before."""
    draw = random.Random(f"{task} {code}")
    ways = ["", "--workers 2", "--schedule sequential", "--schedule al-fm", "--workers 1"]
    for process in range(60):
        with pytest.MonkeyPatch.context() as patched:
            strike(patched, draw.randint(1, 16), signum)
            found = command(task, f"-r 2 {'--resume' if process else ''} {ways[process % 5]}", datasets, tmp_path)
        printed = capsys.readouterr()
        if found == 0:
            break
        assert found == code
        assert "--resume continues from the last checkpoint" in printed.err
        assert "Traceback" not in printed.err
    assert found == 0
    assert process >= 3
    assert_same(outcome(tmp_path), whole[task])
    assert sum(json.loads(path.read_text())["resumptions"] for path in tmp_path.glob("*.json")) >= 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_ends_as_one_that_is_not_too(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("vision", "", datasets, tmp_path / "whole") == 0
    for batches in (5, 9, 12):
        with monkeypatch.context() as patched:
            strike(patched, batches, signal.SIGTERM)
            assert command("vision", "--resume", datasets, tmp_path / "parts") == 143
    assert command("vision", "--resume", datasets, tmp_path / "parts") == 0
    assert_same(outcome(tmp_path / "parts"), outcome(tmp_path / "whole"))


def test_a_finished_run_is_told_again(
    whole: dict[str, dict[str, Any]], datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", "-r 2 --resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "there is nothing to resume; the run starts from the beginning" in printed
    table = printed[printed.index("\ntinyImageNet, vgg, 2 turns") :]
    before = outcome(tmp_path)
    assert_same(before, whole["vision"])
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    begun = time.monotonic()
    assert command("vision", "-r 2 --resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert time.monotonic() - begun < 20
    assert "AL: finished before, nothing is left to do" in printed
    assert "epoch" not in printed.partition("\ntinyImageNet, vgg")[0].replace("epochs", "")
    assert printed[printed.index("\ntinyImageNet, vgg, 2 turns") :] == table
    assert_same(outcome(tmp_path), before)


def test_more_turns_may_be_asked_for_and_fewer_may_not(
    whole: dict[str, dict[str, Any]], datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", "-r 1", datasets, tmp_path) == 0
    assert command("vision", "-r 2 --resume", datasets, tmp_path) == 0
    assert_same(outcome(tmp_path), whole["vision"])
    assert command("vision", "-r 1 --resume", datasets, tmp_path) == 2
    assert "AL has begun turn 2, and -r asks for 1" in capsys.readouterr().err


def test_another_config_is_refused_with_the_keys_that_differ(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", "--method al", datasets, tmp_path) == 0
    before = outcome(tmp_path)
    capsys.readouterr()
    changed = "--method al --resume --set base_lr=0.5 --set epochs=4 --limit-train 20"
    assert command("vision", changed, datasets, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in ("epochs was 3 and is 4", "base_lr was 0.001 and is 0.5", "limit_train was null and is 20"):
        assert words in error
    assert "schedule" not in error
    assert_same(outcome(tmp_path), before)


@pytest.mark.parametrize("n_layers", [3, 1])
def test_a_run_from_before_al_layers_is_gone_on_with_where_it_is_the_same_network(
    n_layers: int,
    datasets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resolved = resolve.resolved_config

    def as_before(*arguments: Any) -> dict[str, Any]:
        config = resolved(*arguments) | {"n_layers": n_layers}
        del config["al_layers"]
        return config

    line = "--method al --set epochs=1"
    with monkeypatch.context() as patch:
        patch.setattr(resolve, "resolved_config", as_before)
        assert command("text", f"{line} --set al_layers={n_layers}", datasets, tmp_path) == 0
    before = outcome(tmp_path)
    capsys.readouterr()
    assert command("text", f"{line} --resume", datasets, tmp_path) == (0 if n_layers == 3 else 2)
    said = capsys.readouterr()
    if n_layers == 3:
        assert "note: the saved run is from before al_layers: its n_layers=3 is al_layers=3 now\n" in said.out
    else:
        assert "the saved run had other settings: al_layers was 1 and is 3; give those" in said.err
    assert_same(outcome(tmp_path), before)


def test_damage_to_the_newest_checkpoint_costs_time_and_nothing_else(
    whole: dict[str, dict[str, Any]],
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        strike(patched, 18, signal.SIGTERM)  # the last batch of AL's turn: what is damaged will be written again
        assert command("vision", "-r 2", datasets, tmp_path) == 143
    folder = checkpoint_folder(tmp_path, "tinyImageNet", "vgg", "al")
    manifests = sorted(folder.glob("*/turn*.json"), key=os.path.getmtime)
    assert len(manifests) == 2
    damaged = manifests[1].with_name(f"{manifests[1].stem}.3-conv_3.pt")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    capsys.readouterr()
    assert command("vision", "-r 2 --resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert (
        f"note: checkpoint {manifests[1].with_suffix('')} cannot be used (its tensors are not what was written)"
        in printed
    )
    assert f"AL: continues from turn 1, epoch {manifests[0].stem[11]}/3" in printed
    assert_same(outcome(tmp_path), whole["vision"])


def test_a_method_that_the_interrupted_run_had_not_begun_is_trained_and_not_taken_from_an_older_run(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("vision", "", datasets, tmp_path) == 0
    with monkeypatch.context() as patched:
        strike(patched, 4, signal.SIGINT)
        assert command("vision", "", datasets, tmp_path) == 130
    capsys.readouterr()
    assert command("vision", "", datasets, tmp_path / "other") == 0
    assert "unfinished" not in capsys.readouterr().out
    assert command("vision", "--resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "AL: continues from turn 1, epoch 1/3, batch " in printed
    assert "bp turn 1 epoch 1/3" in printed
    assert_same(outcome(tmp_path), outcome(tmp_path / "other"))


def test_without_resume_an_unfinished_run_is_pointed_out_and_replaced(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        strike(patched, 4, signal.SIGINT)
        assert command("vision", "--method bp", datasets, tmp_path) == 130
    capsys.readouterr()
    assert command("vision", "--method bp --set checkpoint_every=null", datasets, tmp_path) == 0
    assert "note: an unfinished BP run is there (turn1-epoch1-batch4); --resume would continue it" in (
        capsys.readouterr().out
    )
    folder = checkpoint_folder(tmp_path, "tinyImageNet", "vgg", "bp")
    assert len(list(folder.iterdir())) == 1
    assert [path.stem for path in sorted(folder.glob("*/turn*.json"))] == [
        f"turn1-epoch{epoch}-batch{newest(folder).info.position.batch}" for epoch in (2, 3)
    ]


def test_with_no_checkpoints_kept_a_run_works_as_ever(datasets: Path, tmp_path: Path) -> None:
    assert command("vision", "--method al --set checkpoint_keep=0", datasets, tmp_path) == 0
    assert not (tmp_path / "checkpoints").exists()


def test_the_command_ends_with_the_code_of_the_signal(datasets: Path, tmp_path: Path) -> None:
    """As a process of its own, in the middle of training."""
    line = shlex.split(f"--data-root {datasets} --out {tmp_path} {VISION} --method al --set epochs=2000")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cvmain.py"), *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for text in process.stdout:
            if "epoch 2/" in text:
                break
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begun < 20, "the watchdog ends it after 9 s; the rest is a busy machine"
    assert process.returncode == 143
    assert error.startswith("interrupted: ")
    assert error.count("\n") == 1
    newest(checkpoint_folder(tmp_path, "tinyImageNet", "vgg", "al"))


def test_a_method_that_is_run_alone_in_between_costs_the_other_one_nothing(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a bug: the newest run of any method made a finished one be trained again, without a word."""
    with monkeypatch.context() as patched:
        strike(patched, 20, signal.SIGINT)  # AL takes 18 batches
        assert command("vision", "", datasets, tmp_path) == 130
    assert command("vision", "--method bp", datasets, tmp_path) == 0
    capsys.readouterr()
    assert command("vision", "--resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "AL: finished before" in printed
    assert "BP: finished before" in printed


def test_a_method_that_joins_later_is_gone_on_with_as_well(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("vision", "--method bp", datasets, tmp_path) == 0
    with monkeypatch.context() as patched:
        strike(patched, 4, signal.SIGINT)
        assert command("vision", "--resume", datasets, tmp_path) == 130
    assert "note: AL starts from the beginning\n" in capsys.readouterr().out
    assert command("vision", "--resume", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "AL: continues from turn 1" in printed
    assert "BP: finished before" in printed


def test_other_data_is_refused(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many documents, of other classes."""
    root = shutil.copytree(datasets, tmp_path / "data")
    assert command("text", "--method bp", root, tmp_path) == 0
    path = root / "ag_news_csv" / "train.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        "".join(line.replace(line[:3], {'"1"': '"2"', '"2"': '"1"'}.get(line[:3], line[:3]), 1) for line in lines)
    )
    capsys.readouterr()
    assert command("text", "--method bp --resume", root, tmp_path) == 2
    error = capsys.readouterr().err
    assert "data_digest was " in error
    assert error.count("\n") == 1


def test_a_checkpoint_that_does_not_fit_the_model_is_one_line(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change of the program."""
    with monkeypatch.context() as patched:
        strike(patched, 4, signal.SIGINT)
        assert command("vision", "--method al", datasets, tmp_path) == 130
    capsys.readouterr()
    read = store_module.load_tensors
    monkeypatch.setattr(store_module, "load_tensors", lambda *arguments: _renamed(read(*arguments), "enc.f", "enc.g"))
    assert command("vision", "--method al --resume", datasets, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --resume: checkpoint turn1-epoch1-batch")
    assert " of AL does not fit this program (RuntimeError: Error(s) in loading state_dict for ClassifierAL:)" in error
    assert error.count("\n") == 1


def test_a_timeline_of_what_was_trained_before_is_not_drawn_and_it_is_said(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a bug: a trace without any training was a traceback."""

    def stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(turn, "measure_utilization", stop)  # after the training of the first epoch
        assert command("vision", "--method al --set epochs=1", datasets, tmp_path) == 130
    words = f"--method al --set epochs=1 --resume --trace {tmp_path / 'trace.json'}"
    for _ in range(2):  # what is left is to measure; nothing is left
        capsys.readouterr()
        assert command("vision", words, datasets, tmp_path) == 0
        assert "note: --trace: the first turn was trained before the interruption" in capsys.readouterr().out
        assert not (tmp_path / "trace.json").exists()


def test_two_commands_do_not_write_the_same_results(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock_results(tmp_path, "tinyImageNet", "vgg", "al"):
        assert command("vision", "", datasets, tmp_path) == 2
        error = capsys.readouterr().err
        assert "another command is at work on tinyImageNet vgg with AL there" in error
        assert error.count("\n") == 1
        assert command("vision", "--method bp --set epochs=1", datasets, tmp_path) == 0
    (tmp_path / ".tinyImageNet_vgg_bp.csv.77.tmp").write_text("left by a killed one")
    assert command("vision", "--method bp --set epochs=1", datasets, tmp_path) == 0
    assert not list(tmp_path.glob("*.tmp"))


def test_keys_that_do_not_change_the_numbers_may_differ() -> None:
    check_same_run({"lr": 1, "workers": 1, "schedule": "al-fm"}, {"lr": 1, "workers": 2, "al_gpu_list": ["cpu"]})
    with pytest.raises(UsageError, match='new was 1 and is not there; act was not there and is "relu"') as caught:
        check_same_run({"new": 1}, {"act": "relu"})
    assert "\n" not in str(caught.value)


def test_what_may_change_the_last_bits_is_said(tmp_path: Path) -> None:
    described = {"provenance": {"versions": {"torch": "2.3"}}, "threads": 1, "config": {}}
    record = RunRecord(dataset="digits", model="vgg", method="al", methods_of_run=["al"], info=described)
    changes = {"date": "D", "epochs": 3, "batches_per_epoch": 9}
    point = Checkpoint("run", record, info(2, 1, 4).model_copy(update=changes), {})
    spec = make_spec(tmp_path, versions={"torch": "2.3"})
    assert describe(point, spec) == ["AL: continues from turn 2, epoch 1/3, batch 4/9 (of D)"]
    (_, more) = describe(point, replace(spec, threads=2, versions={"torch": "2.4"}))
    assert "torch 2.3 then, 2.4 now; intra-op threads per worker: 1 then, 2 now: the last bits may differ" in more


def test_that_bp_had_other_processes_is_said(tmp_path: Path) -> None:
    described = {"provenance": {"versions": {}}, "threads": 1, "config": {}}
    record = RunRecord(dataset="digits", model="vgg", method="bp", methods_of_run=["bp"], info=described)
    point = Checkpoint("run", record, info(2, 1, 4).model_copy(update={"method": "bp"}), {})
    alone = replace(make_spec(tmp_path, versions={}, threads=1), method="bp")
    assert len(describe(point, alone)) == 1
    (_, more) = describe(point, replace(alone, world=2, bp_parallel="ddp"))
    assert more == "  BP: one process then, ddp over 2 processes now: the numbers are not those of an uninterrupted run"


def test_that_other_layers_have_replicas_is_said(tmp_path: Path) -> None:
    devices = ["rank0-1", "rank0-1", "rank2:cuda:0"]
    described = {"provenance": {"versions": {}}, "threads": 1, "devices": devices, "config": {}}
    record = RunRecord(dataset="digits", model="vgg", method="al", methods_of_run=["al"], info=described)
    point = Checkpoint("run", record, info(2, 1, 4), {})
    spec = make_spec(tmp_path, versions={}, threads=1)
    assert len(describe(point, spec, ["rank0-1:cuda", "rank0-1:cuda", "rank2"])) == 1, "only the devices are others"
    (_, more) = describe(point, spec, ["cpu"] * 3)
    assert "layer 1 in 2 replicas, layer 2 in 2 replicas then, none now: the numbers are those" in more


def test_that_other_tensors_are_rounded_is_said(tmp_path: Path) -> None:
    devices = ["rank0", "rank1", "rank1"]
    described = {"provenance": {"versions": {}}, "threads": 1, "devices": devices, "config": {"wire": "bf16"}}
    record = RunRecord(dataset="digits", model="vgg", method="al", methods_of_run=["al"], info=described)
    point = Checkpoint("run", record, info(2, 1, 4), {})
    spec = make_spec(tmp_path, versions={}, threads=1, wire="bf16")
    assert len(describe(point, spec, ["rank0:cuda:0", "rank1", "rank1"])) == 1, "only the devices are others"
    for places, now in ((["rank0", "rank0", "rank1"], "behind layer 2"), (["cpu"] * 3, "nowhere")):
        (_, more) = describe(point, spec, places)
        assert more == (
            f"  AL: rounded to bf16 behind layer 1 then, {now} now: the numbers are not those of an uninterrupted run"
        )
    exact = make_spec(tmp_path, versions={}, threads=1, wire="compressed")
    assert "nowhere now" in describe(point, exact, devices)[1]


def test_what_is_exact_may_be_sent_in_another_way(tmp_path: Path) -> None:
    one, other = (make_spec(tmp_path, wire=wire).resolved for wire in ("fp32", "compressed"))
    check_same_run(one, other)


def test_that_the_file_of_a_network_has_changed_is_said(tmp_path: Path) -> None:
    network = {"function": "n.py:f", "file": "n.py", "sha256": "aa", "layers": {}}
    described = {"provenance": {"versions": {}}, "threads": 1, "network": network, "config": {}}
    record = RunRecord(dataset="digits", model="vgg", method="al", methods_of_run=["al"], info=described)
    point = Checkpoint("run", record, info(2, 1, 4), {})
    spec = make_spec(tmp_path, versions={}, threads=1, network=network)
    assert len(describe(point, spec)) == 1
    (_, more) = describe(point, replace(spec, network={**network, "sha256": "bb"}))
    assert more.startswith("  note: n.py changed after turn 2, epoch 1, batch 4 (SHA-256 aa then, bb now): ")


def test_a_setting_that_a_method_does_not_read_may_change(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AL's settings stand at the top level, in every method's configuration, and mean nothing to the others."""
    line = "--method bp,al --set epochs=1"
    assert command("text", line, datasets, tmp_path) == 0
    assert command("text", f"{line} --set temperature=0.3 --resume --method bp", datasets, tmp_path) == 0
    capsys.readouterr()
    assert command("text", f"{line} --set temperature=0.3 --resume", datasets, tmp_path) == 2
    assert "other settings: temperature was 0.5 and is 0.3; give those" in capsys.readouterr().err
