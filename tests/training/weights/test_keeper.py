"""The weights of the best epoch are written whole, and go with the results that they belong to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from training.checkpoints.info import read_json
from training.checkpoints.tensors import load_tensors
from training.errors import UsageError
from training.report.run_info import RunInfo
from training.report.run_log import RunLog
from training.weights import keeper as keeper_module
from training.weights.info import KeptRun, KeptTurn, before_path, turn_path
from training.weights.keeper import Keeper

RUN, LATER = "20261125T101450.123456Z", "20261126T101450.123456Z"


def make_keeper(out: Path, run: str = RUN) -> Keeper:
    keeper = Keeper(out / "digits_vgg_al", run, wanted=True)
    keeper.prepare()
    keeper.begin(
        KeptRun(dataset="digits", model="vgg", method="al", task="vision", info={}, shape={}, classes=["0"], inputs={})
    )
    return keeper


def keep(keeper: Keeper, epoch: int, value: float, turn: int = 1) -> None:
    keeper.take({"conv": {"layer": {"weight": torch.tensor(value)}, "optimizer": {"state": {}}}})
    keeper.keep(turn=turn, seed=1, epoch=epoch, val_acc=50.0, test_acc=[40.0])


def kept(out: Path, run: str = RUN, turn: int = 1) -> tuple[int, float]:
    """Return the epoch and the weight that a reader finds."""
    folder = out / "digits_vgg_al" / run
    found = read_json(turn_path(folder, turn), KeptTurn)
    return found.epoch, float(load_tensors(folder / found.weights.name, found.weights.sha256)["conv"]["weight"])


def test_a_better_epoch_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    keeper = make_keeper(tmp_path)
    for turn, epoch, value in ((1, 1, 0.5), (1, 3, 0.75), (2, 1, 0.25)):
        keep(keeper, epoch, value, turn)
        keeper.settle()
    assert kept(tmp_path) == (3, 0.75)
    assert kept(tmp_path, turn=2) == (1, 0.25)
    names = sorted(path.name for path in (tmp_path / "digits_vgg_al" / RUN).iterdir())
    assert names == ["run.json", "turn1-epoch3.1.pt", "turn1.json", "turn2-epoch1.1.pt", "turn2.json"]


@pytest.mark.parametrize("failing", ["save_tensors", "write_json"])
@pytest.mark.parametrize("epoch", [1, 2], ids=["the same epoch again", "a later one"])
def test_a_writer_that_dies_leaves_what_was_there(
    failing: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(make_keeper(tmp_path), 1, 0.5)
    real = getattr(keeper_module, failing)

    def die(path: Path, content: object) -> object:
        if path.name == "run.json":
            return real(path, content)
        path.with_name(f".{path.name}.1-0.tmp").write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(keeper_module, failing, die)
        with pytest.raises(KeyboardInterrupt):
            keep(make_keeper(tmp_path), epoch, 0.25)
    assert kept(tmp_path) == (1, 0.5)
    again = make_keeper(tmp_path)
    keep(again, epoch, 0.25)
    again.settle()
    assert kept(tmp_path) == (epoch, 0.25)
    left = sorted(path.name for path in (tmp_path / "digits_vgg_al" / RUN).iterdir())
    assert [name.partition("-")[0] for name in left] == ["run.json", "turn1", "turn1.json"]


def test_what_the_results_name_is_there_until_they_are_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "digits_vgg_al" / RUN
    keep(make_keeper(tmp_path), 1, 0.5)
    for _ in range(2):  # killed before the results, and again where it was gone on with
        keep(keeper := make_keeper(tmp_path), 2, 0.25)
        before = read_json(before_path(folder, 1), KeptTurn)
        assert before.epoch == 1
        assert float(load_tensors(folder / before.weights.name, before.weights.sha256)["conv"]["weight"]) == 0.5
        assert kept(tmp_path) == (2, 0.25)
    keeper.settle()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", ".pt"]
    assert kept(tmp_path) == (2, 0.25)


def test_an_earlier_run_goes_once_the_results_are_the_later_one_s(tmp_path: Path) -> None:
    keep(make_keeper(tmp_path), 4, 0.5)
    later = make_keeper(tmp_path, LATER)
    later.settle()  # nothing is kept of it yet
    assert kept(tmp_path) == (4, 0.5)
    keep(later, 1, 0.25)
    assert kept(tmp_path) == (4, 0.5)
    later.settle()
    assert [path.name for path in (tmp_path / "digits_vgg_al").iterdir()] == [LATER]


def test_what_an_earlier_process_has_not_kept_is_known(tmp_path: Path) -> None:
    keeper = make_keeper(tmp_path)
    assert keeper.missing({}) == []
    assert keeper.missing({1: 2}) == [1]
    keep(keeper, 2, 0.5)
    assert keeper.missing({1: 2}) == []
    assert keeper.missing({1: 3, 2: 1}) == [1, 2]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits_vgg_al").write_text("a file")
    with pytest.raises(UsageError, match=r"could not be written .*keep_best=false"):
        make_keeper(tmp_path)


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, state: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    keep(make_keeper(tmp_path), 1, 0.5)
    monkeypatch.setattr(keeper_module, "save_tensors", full)
    with pytest.raises(UsageError, match=r"the best epoch could not be written \(No space left on device\)"):
        keep(make_keeper(tmp_path), 2, 0.25)
    assert kept(tmp_path) == (1, 0.5)


def test_where_none_are_wanted_those_of_earlier_runs_and_their_folder_go(tmp_path: Path) -> None:
    keep(make_keeper(tmp_path), 1, 0.5)
    Keeper(tmp_path / "digits_vgg_al", LATER, wanted=False).settle()
    assert list(tmp_path.iterdir()) == []


def test_the_epoch_that_is_kept_is_the_one_that_is_reported(tmp_path: Path) -> None:
    info = RunInfo(
        config={},
        seeds=[1, 2],
        train_samples=1,
        parameters_training=1,
        parameters_inference=1,
        threads=1,
        schedule=None,
        devices=["cpu"],
        losses={"": ["loss"]},
    )
    log = RunLog(tmp_path, "digits", "vgg", "bp", info)
    seen: dict[int, int] = {}
    # The third is equal as recorded, so the earlier one counts.
    for turn, epoch, accuracy in ((1, 1, 50.0), (1, 2, 60.00001), (1, 3, 60.00004), (1, 4, 55.0), (2, 1, 20.0)):
        if log.is_best(turn, accuracy):
            seen[turn] = epoch
        log.add(
            turn,
            epoch,
            train_acc=1.0,
            val_acc=accuracy,
            test_acc=[1.0],
            train_time=1.0,
            losses={"": {"loss": 1.0}},
        )
    figures = log.summary()
    assert figures is not None
    assert seen == log.chosen_epochs() == {1: 2, 2: 1}
    assert list(seen.values()) == figures.chosen_epoch
