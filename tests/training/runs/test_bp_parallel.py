"""BP over processes: the numbers of one, the same end for all, and checkpoints that go on anywhere."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from training.config.arguments import parse, read_command
from training.errors import UsageError
from training.runs.resolve import find_machine

from ..launched import epochs_in, launch
from ..test_experiment import rows
from .test_ranks import LIMIT, alone, forget_the_last_epoch

#: No batch normalization, so that the numbers are those of one process but for the order of sums; an odd last batch.
TEXT = (
    "imdb transformer --method bp --set epochs=2 --set embedding_dim=50 --set x_hid=8 --set batch_size=7 "
    "--set max_len=12 --set dropout=0.2 --set checkpoint_keep=9"
)
IMAGES = "digits vgg --method bp --set width=0.125 --limit-train 200 --set train_batch_size=32"


def losses(table: Path) -> list[float]:
    with table.open() as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]


def test_two_processes_train_as_one_does(datasets: Path, tmp_path: Path) -> None:
    one, two, text = tmp_path / "one", tmp_path / "two", f"{TEXT} --data-root {datasets}"
    alone(f"{text} --out {one}", "nlpmain.py")
    with launch(tmp_path, 2, f"{text} --out {two}", script="nlpmain.py") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert second.text == "", "only rank 0 prints"
    assert "BP: 5 layers on cpu, DDP over 2 ranks; 1 thread per rank" in first.text
    assert losses(two / "imdb_transformer_bp.csv") == pytest.approx(losses(one / "imdb_transformer_bp.csv"), rel=1e-4)
    assert json.loads((two / "imdb_transformer_bp.json").read_text())["bp_parallel"] == "ddp"


@pytest.mark.slow
def test_a_checkpoint_goes_on_over_processes_and_in_one(datasets: Path, tmp_path: Path) -> None:
    """Over as many processes as before the numbers are those of a run that nothing interrupted."""
    whole, text, name = tmp_path / "whole", f"{TEXT} --data-root {datasets}", "imdb_transformer_bp"
    with launch(tmp_path, 2, f"{text} --out {whole}", script="nlpmain.py") as launched:
        assert [end.code for end in launched.ends()] == [0, 0]
    for folder in ("again", "one"):
        shutil.copytree(whole, tmp_path / folder)
        forget_the_last_epoch(tmp_path / folder, name)
    with launch(tmp_path, 2, f"{text} --resume --out {tmp_path / 'again'}", script="nlpmain.py") as launched:
        assert [end.code for end in launched.ends()] == [0, 0]
    assert rows(tmp_path / "again" / f"{name}.csv") == rows(whole / f"{name}.csv")
    alone(f"{text} --resume --out {tmp_path / 'one'}", "nlpmain.py")
    assert losses(tmp_path / "one" / f"{name}.csv") == pytest.approx(losses(whole / f"{name}.csv"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gpipe", "1f1b", "interleaved", "zb"])
def test_a_pipeline_trains_as_one_process_does_and_goes_on_in_one(datasets: Path, tmp_path: Path, way: str) -> None:
    """Without dropout, whose numbers padding changes. Only rank 0 needs the data."""
    one, two, name = tmp_path / "one", tmp_path / "two", "imdb_transformer_bp"
    text = f"{TEXT} --set dropout=0 --set val_fraction=0.2"
    alone(f"{text} --data-root {datasets} --out {one}", "nlpmain.py")
    roots = (f"--data-root {datasets}", f"--data-root {tmp_path / 'nothing'}")
    with launch(tmp_path, 2, f"{text} --bp-parallel {way} --out {two}", *roots, script="nlpmain.py") as launched:
        first, second = launched.ends()
    assert (first.code, second.code, second.text) == (0, 0, ""), first.text + second.text
    expected = losses(one / f"{name}.csv")
    assert losses(two / f"{name}.csv") == pytest.approx(expected, rel=1e-3)
    found = json.loads((two / f"{name}.json").read_text())
    assert found["bp_parallel"] == way
    assert set(found["devices"]) == {"rank0", "rank1"}
    assert any("texts are padded to 12 positions" in note for note in found["notes"])
    forget_the_last_epoch(two, name)
    alone(f"{text} --data-root {datasets} --resume --out {two}", "nlpmain.py")
    assert losses(two / f"{name}.csv") == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "1f1b"])
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_is_killed_ends_the_others(tmp_path: Path, dies: int, way: str) -> None:
    out = tmp_path / "out"
    with launch(tmp_path, 2, f"{IMAGES} --bp-parallel {way} --set epochs=500 --out {out}") as launched:
        launched.wait_for(lambda: epochs_in(out, "digits_vgg_bp") >= 1)
        launched.send(dies, signal.SIGKILL)
        end = launched.ends()[1 - dies]
    assert (end.code, end.seconds < LIMIT) == (1, True), end.text
    assert f"rank {dies} (" in end.text.strip().splitlines()[-1]
    assert "Traceback" not in end.text


@pytest.mark.slow
@pytest.mark.parametrize(("way", "rank"), [("ddp", 0), ("ddp", 1), ("1f1b", 1)])
def test_a_signal_to_any_process_ends_all_with_a_checkpoint(tmp_path: Path, rank: int, way: str) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = f"{IMAGES} --bp-parallel {way} --set epochs=5"
    with launch(tmp_path, 2, f"{command} --out {out}") as launched:
        launched.wait_for(lambda: epochs_in(out, "digits_vgg_bp") >= 2)
        launched.send(rank, signal.SIGTERM)
        ends = launched.ends()
    assert [end.code for end in ends] == [143, 143], ends[0].text + ends[1].text
    assert all(end.seconds < LIMIT for end in ends)
    for arguments in (f"--resume --out {out}", f"--out {whole}"):
        with launch(tmp_path, 2, f"{command} {arguments}") as launched:
            assert [end.code for end in launched.ends()] == [0, 0]
    assert rows(out / "digits_vgg_bp.csv") == rows(whole / "digits_vgg_bp.csv")


@pytest.mark.slow
def test_data_that_one_process_cannot_read_ends_all_with_one_line(datasets: Path, tmp_path: Path) -> None:
    with launch(
        tmp_path,
        2,
        f"{TEXT} --out {tmp_path / 'out'}",
        f"--data-root {datasets}",
        f"--data-root {tmp_path / 'nothing'}",
        script="nlpmain.py",
    ) as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (2, 2), first.text + second.text
    line = first.text.strip()
    assert line.startswith("error: ")
    assert line.endswith("(in rank 1)")
    assert second.text.strip().endswith(line.removeprefix("error: "))


@pytest.mark.slow
def test_none_leaves_the_other_processes_idle(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    command = f"{IMAGES} --set epochs=1"
    alone(f"{command} --out {one}")
    with launch(tmp_path, 2, f"{command} --bp-parallel none --out {two}") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (0, 0)
    assert "(this process alone, the others wait)" in first.text
    assert rows(one / "digits_vgg_bp.csv") == rows(two / "digits_vgg_bp.csv")


@pytest.mark.parametrize(
    ("world", "words", "told"),
    [
        (1, "--bp-parallel ddp", "--bp-parallel ddp: needs several processes; start them with torchrun --nproc"),
        (1, "--bp-parallel none --method al", "--bp-parallel says how BP trains, and --method al has no BP"),
        (2, "--set compile=true --method bp", "compile: not with BP over several processes"),
        (
            3,
            "--method bp --bp-parallel interleaved",
            "--bp-parallel interleaved: 3 processes need at least 6 layers, 2",
        ),
        (
            2,
            "--method bp --bp-parallel 1f1b --set bp_gpu_list=rank1,rank1,rank0,rank0,rank0",
            "bp_gpu_list: with 1F1B over 2 processes the layers are in 2 stages of neighbors, in rank0, rank1; give",
        ),
        (
            2,
            "--method bp --set bp_gpu_list=rank0,rank0,rank1,rank1,rank1",
            "bp_gpu_list: 'rank0' names a process, and with DDP every process has all layers",
        ),
    ],
)
def test_what_does_not_go_is_refused_in_one_line(
    world: int, words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(UsageError, match=f"^{told}"):
        read_command("vision", ["digits", "vgg", *words.split()])


def test_ddp_is_what_torchrun_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    command = read_command("vision", ["digits", "vgg"])
    assert find_machine(command.config, "vgg", "bp", command.arguments.bp_parallel).bp_parallel == "ddp"
    assert parse("vision", ["digits", "vgg", "--bp-parallel", "zb"]).bp_parallel == "zb"
