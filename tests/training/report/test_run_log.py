"""The files of a run: their columns, what is reported and from which epoch, and what survives an accident."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from training.errors import UsageError
from training.report.columns import columns
from training.report.output import prepare_output
from training.report.run_info import RunInfo
from training.report.run_log import RunLog

LOCAL = {"one": ["assoc", "ae"], "two": ["assoc", "ae"]}
AL_COLUMNS = (
    "turn epoch train_acc val_acc test_acc train_time "
    "assoc_loss_1 assoc_loss_2 ae_loss_1 ae_loss_2 test_acc_depth_1 test_acc_depth_2"
)


def info(**changes: Any) -> RunInfo:
    given: dict[str, Any] = {
        "config": {"epochs": 2, "seed": 7},
        "seeds": [7, 8],
        "train_samples": 100,
        "parameters_training": 30,
        "parameters_inference": 20,
        "threads": 1,
        "schedule": "continuous",
        "devices": ["cpu", "cpu"],
        "losses": LOCAL,
        "provenance": {"versions": {"python": "3"}, "git_commit": None},
        "notes": ["a note"],
    }
    return RunInfo(**(given | changes))


def begin(out: Path, method: str = "al", **changes: Any) -> RunLog:
    losses = {"": ["loss"]} if method == "bp" else LOCAL
    return RunLog(out, "digits", "vgg", method, info(**({"losses": losses} | changes)))


def add(
    run: RunLog, turn: int, epoch: int, *, val: float, test: float, seconds: float = 1.0, loss: float = 0.5
) -> None:
    common: dict[str, Any] = {"train_acc": 50.0, "val_acc": val, "train_time": seconds}
    if run.method == "bp":
        run.add(turn, epoch, losses={"": {"loss": loss}}, test_acc=[test], **common)
    else:
        losses = {"one": {"assoc": loss, "ae": 0.1}, "two": {"assoc": 2.0, "ae": 0.2}}
        run.add(turn, epoch, losses=losses, test_acc=[test - 1, test], **common)


def content(out: Path, method: str = "al") -> dict[str, Any]:
    text = (out / f"digits_vgg_{method}.json").read_text()
    whole: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return whole


def table(out: Path, method: str = "al") -> list[dict[str, str]]:
    with open(out / f"digits_vgg_{method}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_exactly_the_documented_ones(tmp_path: Path) -> None:
    add(begin(tmp_path), 0, 1, val=1, test=1)
    add(begin(tmp_path, "bp"), 0, 1, val=1, test=1)
    al, bp = ((tmp_path / f"digits_vgg_{method}.csv").read_text().splitlines() for method in ("al", "bp"))
    assert al[0] == ",".join(AL_COLUMNS.split())
    assert bp[0] == "turn,epoch,train_acc,val_acc,test_acc,train_time,loss"
    assert bp[1] == "0,1,50.0,1.0,1.0,1.0,0.5"
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert names == [f"digits_vgg_{method}.{kind}" for method in ("al", "bp") for kind in ("csv", "json")]


def test_both_files_are_there_after_the_first_epoch(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.summary() is None
    assert not list(tmp_path.iterdir())
    for epoch in (1, 2):
        add(run, 0, epoch, val=epoch, test=10 + epoch)
        assert [row["epoch"] for row in table(tmp_path)] == [str(e) for e in range(1, epoch + 1)]
        assert content(tmp_path)["chosen_epoch"] == [epoch]
        assert content(tmp_path)["turns_finished"] == 0
    run.finish_turn(0, peak_memory_mb=12.34)
    assert content(tmp_path)["turns_finished"] == 1


def test_the_epoch_is_chosen_on_validation_and_the_first_of_equals(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for turn, vals in enumerate(([40, 60, 60, 50], [70, 60, 50, 40])):
        for epoch, val in enumerate(vals, 1):
            add(run, turn, epoch, val=val, test=10 * turn + epoch, seconds=2.0 * epoch)
        run.finish_turn(turn, peak_memory_mb=100.0 + turn)
    summary = run.summary()
    assert summary is not None
    assert summary.chosen_epoch == [2, 1]
    assert summary.test_acc == [2, 11]
    assert summary.final_test_acc == [4, 14]
    assert summary.test_acc_mean == 6.5
    assert summary.test_acc_std == pytest.approx(9 / math.sqrt(2), abs=1e-4)
    assert summary.train_time == [8.0, 8.0]
    assert summary.samples_per_s == 100 * 8 / 16
    assert summary.peak_memory_mb == 101.0


def test_the_json_tells_everything_else(tmp_path: Path) -> None:
    run = begin(tmp_path)
    add(run, 0, 1, val=1, test=5, seconds=0.0)
    run.finish_turn(0, notes=["a note", "another"])
    found = content(tmp_path)
    assert (found["dataset"], found["model"], found["method"]) == ("digits", "vgg", "al")
    assert found["test_acc_mean"] == 5
    assert found["test_acc_std"] is None  # one turn has no spread
    assert found["samples_per_s"] is None  # no time was measured
    assert found["peak_memory_mb"] is None
    assert found["final_epoch"][0]["assoc_loss_2"] == 2.0
    assert found["notes"] == ["a note", "another"]
    assert found["config"] == {"epochs": 2, "seed": 7}
    expected = "seeds parameters_training parameters_inference threads schedule devices provenance losses epochs_done"
    assert set(expected.split()) <= set(found)


def test_a_loss_that_is_no_number_is_null_in_json_and_told_in_csv(tmp_path: Path) -> None:
    add(begin(tmp_path), 0, 1, val=1, test=1, loss=math.nan)
    assert content(tmp_path)["final_epoch"][0]["assoc_loss_1"] is None
    assert table(tmp_path)[0]["assoc_loss_1"] == "nan"


def test_one_method_leaves_the_other_alone_and_replaces_its_own(tmp_path: Path) -> None:
    add(begin(tmp_path, "bp"), 0, 1, val=1, test=33)
    old = begin(tmp_path)
    for epoch in (1, 2, 3):
        add(old, 0, epoch, val=1, test=1)
    fresh = begin(tmp_path)
    assert len(table(tmp_path)) == 3  # a run that does no epoch destroys nothing
    add(fresh, 0, 1, val=1, test=44)
    assert len(table(tmp_path)) == 1
    assert content(tmp_path)["test_acc"] == [44]
    assert content(tmp_path, "bp")["test_acc"] == [33]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "\x80"])
def test_a_damaged_json_is_replaced(tmp_path: Path, damage: str) -> None:
    (tmp_path / "digits_vgg_al.json").write_bytes(damage.encode("latin-1"))
    add(begin(tmp_path), 0, 1, val=1, test=9)
    assert content(tmp_path)["test_acc"] == [9]


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path)
    add(run, 0, 1, val=1, test=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.storage.files.os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        add(run, 0, 2, val=1, test=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_figures_of_another_shape_are_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"train_acc": 1.0, "val_acc": 1.0, "train_time": 1.0}
    both = {"assoc": 1.0, "ae": 1.0}
    with pytest.raises(ValueError, match="al with 2 layers: missing or not expected: ae_loss_2"):
        begin(tmp_path).add(0, 1, losses={"one": both, "two": {"assoc": 1.0}}, test_acc=[1.0, 1.0], **common)
    with pytest.raises(ValueError, match="missing or not expected: test_acc_depth_2"):
        begin(tmp_path).add(0, 1, losses={"one": both, "two": both}, test_acc=[1.0], **common)
    with pytest.raises(ValueError, match="loss"):
        begin(tmp_path, "bp").add(0, 1, losses={}, test_acc=[1.0], **common)
    assert not list(tmp_path.iterdir())


def test_columns_follow_from_the_names_of_the_losses() -> None:
    common = ["turn", "epoch", "train_acc", "val_acc", "test_acc", "train_time"]
    assert columns({"": ("loss",)}) == [*common, "loss"]
    assert columns({"one": ("loss",), "two": ("loss",)})[6:] == [
        "loss_1",
        "loss_2",
        "test_acc_depth_1",
        "test_acc_depth_2",
    ]
    mixed = columns({"one": ("same", "other"), "two": ("other",), "three": ("same", "further")})
    assert mixed[6:-3] == ["same_loss_1", "same_loss_3", "other_loss_1", "other_loss_2", "further_loss_3"]


def test_what_a_checkpoint_holds_brings_the_log_back(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for turn in (1, 2):
        add(run, turn, 1, val=1, test=turn, loss=math.inf if turn == 2 else 0.123456789)
        run.finish_turn(turn, peak_memory_mb=1.0 + turn, utilization={"utilization": 50.0}, notes=["more"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    state = json.loads(json.dumps(run.state()))
    for path in list(tmp_path.iterdir()):
        path.unlink()
    again = RunLog(tmp_path, "digits", "vgg", "al", RunInfo(**json.loads(json.dumps(run.info.to_json()))))
    again.load(state)
    again.write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_output_folder_is_made(tmp_path: Path) -> None:
    out = prepare_output(tmp_path / "a" / "b")
    assert out.is_dir()
    assert prepare_output(str(out)) == out
    assert not list(out.iterdir())


def test_an_output_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"results cannot be written there \(.*\); name another folder with --out"):
            prepare_output(path)

    def deny(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("data.storage.files.tempfile.TemporaryFile", deny)
    with pytest.raises(UsageError, match="Permission denied"):
        prepare_output(tmp_path)


def test_a_folder_that_vanishes_is_one_line(tmp_path: Path) -> None:
    run = begin(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"digits_vgg_al\.csv: cannot be written \(No such file or directory\)"):
        add(run, 0, 1, val=1, test=1)
