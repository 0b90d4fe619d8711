"""Processes that divide the rows of every batch: the numbers of one process but for rounding, and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from training.config import read_command
from training.errors import ConfigError
from training.runs.resolve import check_replicas
from training.runs.tasks import load_task

from ..launched import SMALL, launch
from ..specs import make_spec
from ..test_experiment import rows
from .test_ranks import TEXT, alone, forget_the_last_epoch

COMMAND = f"{SMALL} --set checkpoint_keep=9 --set epochs=2 --set stage_replicas=[2,1]"


@pytest.mark.slow
def test_two_replicas_give_what_one_process_gives_but_for_rounding(datasets: Path, tmp_path: Path) -> None:
    """A transformer, with dropout, texts of changing length and an odd last batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = f"{TEXT} --data-root {datasets}"
    alone(f"{command} --out {one}", "nlpmain.py")
    with launch(tmp_path, 2, f"{command} --set stage_replicas=[2] --out {two}", script="nlpmain.py") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert "replicas 2 (exact but for rounding, and batch normalization by each replica's rows)" in first.text
    found, expected = rows(two / "imdb_transformer_al.csv"), rows(one / "imdb_transformer_al.csv")
    for here, there in zip(found, expected, strict=True):
        losses = [name for name in there if "loss" in name]
        assert losses
        assert [float(here[name]) for name in losses] == pytest.approx(
            [float(there[name]) for name in losses], rel=1e-4
        )
    info = json.loads((two / "imdb_transformer_al.json").read_text())
    assert set(info["devices"]) == {"rank0-1"}
    assert [one["replica"] for one in info["utilization"]["ranks"]] == [0, 1]
    assert any(note.startswith("stage_replicas [2]: ") for note in info["notes"])
    assert info["utilization"]["ceiling"] >= 1.0


@pytest.mark.parametrize("method", ["al", "ce", "scl", "predsim"])
def test_a_method_that_compares_rows_is_refused_before_any_trains(method: str) -> None:
    command = read_command("vision", ["digits", "vgg", "--set", "width=0.05"])
    task = load_task(command.config, "digits", "vgg", Path("datasets"), 60)
    specs = [
        make_spec(method=name, methods=("ce", method), world=2, stage_replicas=[1, 2]) for name in ("bp", "ce", method)
    ]
    if method in ("al", "ce"):
        check_replicas(specs, task)
        return
    with pytest.raises(
        ConfigError, match="compares the rows of a batch with one another; leave stage_replicas out, or"
    ) as said:
        check_replicas(specs, task)
    assert str(said.value).endswith(f"or {method} out of --method")
    assert "'conv_1'" in str(said.value)


@pytest.mark.slow
def test_it_is_refused_under_torchrun_without_an_epoch_of_the_method_before(tmp_path: Path) -> None:
    command = f"{SMALL.replace('--method al', '--method al,scl')} --set stage_replicas=[2] --out {tmp_path / 'out'}"
    with launch(tmp_path, 2, command) as launched:
        ends = launched.ends()
    assert [end.code for end in ends] == [2, 2]
    assert "error: stage_replicas: not with SCL: layer 'conv_1' cannot have replicas" in ends[0].text
    assert "epoch" not in ends[0].text


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_replicas_go_on_bit_for_bit_where_they_were_interrupted(tmp_path: Path) -> None:
    """Running statistics of batch normalization are averaged, so a checkpoint holds what all replicas have."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    with launch(tmp_path, 3, f"{COMMAND} --out {whole}") as launched:
        assert [end.code for end in launched.ends(150.0)] == [0, 0, 0]
    shutil.copytree(whole, out)
    forget_the_last_epoch(out)
    with launch(tmp_path, 3, f"{COMMAND} --resume --out {out}") as launched:
        assert [end.code for end in launched.ends(150.0)] == [0, 0, 0]
    assert rows(out / "digits_vgg_al.csv") == rows(whole / "digits_vgg_al.csv")
    forget_the_last_epoch(out)
    alone(f"{COMMAND} --set stage_replicas=null --resume --out {out}")
    assert rows(out / "digits_vgg_al.csv")[0] == rows(whole / "digits_vgg_al.csv")[0]
    assert json.loads((out / "digits_vgg_al.json").read_text())["resumptions"] == 1, "of this run's checkpoint"
