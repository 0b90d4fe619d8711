"""A network of the user's own predicts from its kept weights, with every objective, or says why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from data import entry
from data.registry import resolve
from training.checkpoints.info import read_json, write_json
from training.predict.__main__ import main
from training.weights.info import KeptRun

from .conftest import METHODS, NETWORKS
from .test_predict import accuracy, kept, predicted, refused

CNN = ("--dataset", "digits", "--model", "nets.py:cnn")
AL = (*CNN, "--method", "al")


@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_predicted_as_the_run_measured_them(
    method: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = kept(own / "out", f"digits_nets.cnn_{method}")
    assert method == "bp" or turn["epoch"] >= 2  # the stack has grown
    found = predicted(capsys, "out", "pictures", *CNN, "--method", method)
    assert accuracy(found, [Path(one["input"]).stem[-1] for one in found]) == pytest.approx(turn["test_acc"][-1])


def test_texts_are_predicted_as_the_run_measured_them(
    own: Path, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = resolve(entry("agnews", "text").load, "agnews")(datasets).read()
    documents = [(" ".join(text.split()), corpus.classes[label]) for text, label in corpus.test]
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text, _ in documents), encoding="utf-8")
    found = predicted(capsys, "out", tmp_path / "lines.txt", "--dataset", "agnews")
    measured = kept(own / "out", "agnews_nets.words_al")["test_acc"][-1]
    assert accuracy(found, [label for _, label in documents]) == pytest.approx(measured)
    found = predicted(capsys, "out", tmp_path / "lines.txt", "--dataset", "agnews", "--exit", 1)
    within = json.loads((own / "out/agnews_nets.words_al.json").read_text())["early_exit"][0]["budgets"][-1]
    assert accuracy(found, [label for _, label in documents]) == pytest.approx(within["accuracy"], abs=1e-3)


def test_a_file_that_has_moved_is_named_and_one_that_has_changed_is_noted(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = own / "out", next((own / "pictures").iterdir())
    before = predicted(capsys, out, picture, *AL)
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, out, picture, *AL)
    assert "network nets.py: there is no such file" in said
    assert (
        f"the run had it from {own / 'nets.py'}: go to the folder where the run began, or say with --network " in said
    )
    assert "network none.py: there is no such file" in refused(capsys, out, picture, *AL, "--network", "none.py:cnn")
    assert '"none.py" names no function' in refused(capsys, out, picture, *AL, "--network", "none.py")
    (tmp_path / "moved.py").write_text(NETWORKS)
    assert predicted(capsys, out, picture, *AL, "--network", "moved.py:cnn") == before
    (tmp_path / "moved.py").write_text(f"{NETWORKS}\n# a remark")
    arguments = [*map(str, (out, picture)), *AL, "--network", "moved.py:cnn", "--json"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert [json.loads(printed.out)] == before
    assert f"note: {tmp_path / 'moved.py'} is not as it was in the run (SHA-256)" in printed.err


def test_another_network_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for function, says in (
        ("gone", "there is no function gone in nets.py; it has "),
        (
            "long",
            "network nets.py:long: is cut into zero; one-pool: one, norm, act, pool; two-end: two, end, and was cut",
        ),
        ("wide", "does not fit nets.py:wide as it is (layer one-pool: Error(s) in loading state_dict"),
        ("words", "called with ImageShape, raised AttributeError"),
    ):
        assert says in refused(capsys, "out", "pictures", *AL, "--network", f"nets.py:{function}"), function


def test_a_configuration_from_before_objectives_had_a_place_is_read(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("digits_nets.cnn_scl.json", "models/digits_nets.cnn_scl"):
        source, target = own / "out" / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    [file] = tmp_path.glob("models/*/*/run.json")
    run = read_json(file, KeptRun)
    config = dict(run.info["config"])
    assert config["objectives"]["scl"]["projector"] == "mlp"
    config |= config.pop("objectives")["scl"]  # where the keys of an objective stood
    for key in ("grow", "grow_lr", "network_layers", "network_bridge"):
        del config[key]
    write_json(file, run.model_copy(update={"info": {**run.info, "config": config}}))
    picture = next((own / "pictures").iterdir())
    assert predicted(capsys, tmp_path, picture) == predicted(capsys, "out", picture, *CNN, "--method", "scl")
