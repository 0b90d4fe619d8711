"""`training.predict` predicts a test set as its run measured it, and says what is missing. CPU, no network."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import entry
from data.registry import resolve
from data.vision.digits import load
from training import experiment
from training.checkpoints.info import read_json, write_json
from training.predict.__main__ import main
from training.weights.info import KeptTurn

DIGITS = "digits vgg --limit-train 120 --set width=0.1 --set train_batch_size=16 --set epochs=3 --workers 1"
TEXTS = (
    "agnews {} --method al,bp --set embedding_dim=50 --set x_hid=8 --set y_hid=8 --set epochs=2 --set batch_size=8 "
    "--set max_len=12 --workers 1"
)


@pytest.fixture(scope="module")
def results(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of both tasks, and the digits of the test set as pictures."""
    out = tmp_path_factory.mktemp("results")
    (out / "pictures").mkdir()
    for number, (image, label) in enumerate(zip(*load(out, 8).test, strict=True)):
        Image.fromarray(image[0].numpy()).save(out / "pictures" / f"{number:03}_{label}.png")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setattr("training.report.gallery.draw", lambda *_: [])
        assert experiment.main("vision", shlex.split(f"{DIGITS} --out {out}")) == 0
        for model in ("lstm", "transformer"):
            words = shlex.split(f"{TEXTS.format(model)} --data-root {datasets} --out {out}")
            assert experiment.main("text", words) == 0
    return out


def kept(out: Path, name: str) -> dict[str, Any]:
    [path] = (out / "models" / name).glob("*/turn1.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(list(map(str, words))) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def accuracy(found: Sequence[dict[str, Any]], labels: Sequence[str]) -> float:
    right = sum(one["class"] == label for one, label in zip(found, labels, strict=True))
    return 100.0 * right / len(labels)


@pytest.mark.parametrize("method", ["al", "bp"])
def test_pictures_are_predicted_as_the_run_measured_them(
    method: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = kept(results, f"digits_vgg_{method}")
    content = json.loads((results / f"digits_vgg_{method}.json").read_text())
    assert [turn["epoch"]] == content["chosen_epoch"]
    assert round(turn["test_acc"][-1], 4) == content["test_acc"][0]
    for depth, measured in enumerate(turn["test_acc"], 1):
        words = ["--depth", depth] if method == "al" else []
        found = predicted(
            capsys, results, results / "pictures", "--dataset", "digits", "--method", method, "--top", 3, *words
        )
        labels = [Path(one["input"]).stem[-1] for one in found]
        assert accuracy(found, labels) == pytest.approx(measured)
        assert {one["depth"] for one in found} == ({depth} if method == "al" else {5})
        for one in found:
            shares = [each["probability"] for each in one["top"]]
            assert len(shares) == 3
            assert shares == sorted(shares, reverse=True)
            assert 0.1 <= shares[0] <= 1.0


@pytest.mark.parametrize("method", ["al", "bp"])
@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_texts_are_predicted_as_the_run_measured_them(
    model: str,
    method: str,
    results: Path,
    datasets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = resolve(entry("agnews", "text").load, "agnews")(datasets).read()
    documents = [(" ".join(text.split()), corpus.classes[label]) for text, label in corpus.test]
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text, _ in documents), encoding="utf-8")
    chosen = ["--dataset", "agnews", "--model", model, "--method", method]
    found = predicted(capsys, results, tmp_path / "lines.txt", *chosen)
    measured = kept(results, f"agnews_{model}_{method}")["test_acc"][-1]
    assert accuracy(found, [label for _, label in documents]) == pytest.approx(measured)
    assert found[1]["input"] == f"{tmp_path / 'lines.txt'}:2"
    # The same texts by the two other ways in.
    lines = (tmp_path / "lines.txt").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    assert [one["class"] for one in predicted(capsys, results, "-", *chosen)] == [one["class"] for one in found]
    text, _ = documents[0]
    [one] = predicted(capsys, results, "--text", text, *chosen)
    assert one["class"] == found[0]["class"]


def test_a_line_is_for_a_reader(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = next((results / "pictures").iterdir())
    assert main([str(results), str(picture), "--dataset", "Digits", "--method", "bp", "--top", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("digits vgg, BP: turn 1, epoch ")
    name, _, rest = printed.out.rpartition(": ")
    assert name == str(picture)
    assert rest.count(" %)") == 2


def test_mistakes_are_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = next((results / "pictures").iterdir())
    digits, bp = ("--dataset", "digits"), ("--dataset", "digits", "--method", "bp")
    text = ("--model", "lstm", "--method", "al")
    (tmp_path / "empty").mkdir()
    for words, says in (
        ((results, picture), "choose one with --dataset and --model and --method"),
        ((results, picture, *digits), "holds several results (digits vgg al, digits vgg bp); choose one with --method"),
        ((results, picture, "--model", "resnet"), "there is no result of resnet in it; there are agnews lstm al"),
        ((results, *bp), "there is nothing to predict: give pictures"),
        ((results, *text), "there is nothing to predict: give files, - for the standard input, or --text"),
        ((results, "none.png", *bp), "none.png: there is no such file or folder"),
        ((results, tmp_path / "empty", *bp), "there are no pictures in it"),
        ((results, "-", *bp), "-: the network takes pictures"),
        ((results, "--text", "a", *bp), "--text: the network takes pictures"),
        ((results, tmp_path, *text), "is a folder; name files"),
        ((results, "none.txt", *text), "none.txt: there is no such file; give the text itself with --text"),
        ((results, picture, *bp, "--turn", 2), "--turn 2: "),
        ((results, *bp, picture, "--turn", 2), "--turn 2: "),  # words and options in any order
        ((*bp, "--turn", 2), "the following arguments are required: RESULT_DIR"),
        ((results, picture, *bp, "--exit", 0.5), "--exit: BP has one depth, at which every sample leaves"),
        ((results, picture, *bp, "--exit", 0.5, "--depth", 5), "--exit and --depth: "),
        ((results, picture, *bp, "--exit", 1.5), "--exit: got '1.5'; expected a share of the work of all layers"),
        ((results, picture, *bp, "--network", "nets.py:cnn"), "--network nets.py:cnn: vgg is no network of your own"),
        ((tmp_path / "none", picture), "there is no such folder"),
        ((tmp_path, picture), "there are no results in it"),
    ):
        assert says in refused(capsys, *words), words
    # These are found with the network at hand.
    for words, says in (
        ((*bp, "--depth", 2), "--depth 2: BP trains all 5 layers as one"),
        ((*digits, "--method", "al", "--depth", 5), "--depth 5: the network has 4 layers; give a number from 1 to 4"),
        ((*bp, "--device", "tpu"), "--device tpu: "),
    ):
        assert says in refused(capsys, results, picture, *words)


def test_what_is_missing_or_does_not_belong_together_is_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    picture = next((results / "pictures").iterdir())
    for name in ("digits_vgg_bp.json", "models/digits_vgg_bp"):
        source, target = results / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    [folder] = (out / "models/digits_vgg_bp").iterdir()
    [weights] = folder.glob("*.pt")
    assert main([str(out), str(picture)]) == 0
    capsys.readouterr()

    # Of a run that was killed when it had kept a later epoch and not reported it, the reported one counts.
    reported = read_json(folder / "turn1.json", KeptTurn)
    write_json(folder / "turn1.before.json", reported)
    write_json(folder / "turn1.json", reported.model_copy(update={"epoch": reported.epoch + 1}))
    assert main([str(out), str(picture)]) == 0
    assert f"turn 1, epoch {reported.epoch}; " in capsys.readouterr().err
    (folder / "turn1.before.json").replace(folder / "turn1.json")

    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    assert f"{weights}: is broken (its tensors are not what was written)" in refused(capsys, out, picture)
    weights.unlink()
    assert f"{weights}: is missing" in refused(capsys, out, picture)
    weights.write_bytes(whole)
    run = (folder / "run.json").read_text()
    (folder / "run.json").write_text(run.replace('"9"', '"8"'))
    assert "run.json: cannot be used (run.json is not what was written)" in refused(capsys, out, picture)
    (folder / "run.json").unlink()
    assert "run.json: is missing" in refused(capsys, out, picture)
    (folder / "run.json").write_text(run)
    assert main([str(out), str(picture)]) == 0
    capsys.readouterr()

    content = json.loads((out / "digits_vgg_bp.json").read_text())
    for changes, says in (
        ({"run": "20200101T000000.000000Z"}, f"are of another run ({folder.name}) than the results"),
        ({"run": None}, "is from before weights were kept; run the command again"),
    ):
        (out / "digits_vgg_bp.json").write_text(json.dumps(content | changes))
        assert says in refused(capsys, out, picture)
    (out / "digits_vgg_bp.json").write_text(json.dumps(content))
    shutil.rmtree(folder)
    assert f"{folder}: there is no such folder, and the weights should be in it" in refused(capsys, out, picture)
    content["config"]["keep_best"] = False
    (out / "digits_vgg_bp.json").write_text(json.dumps(content))
    assert "the run kept no weights; run the command again with --set keep_best=true" in refused(capsys, out, picture)


def test_a_run_can_leave_the_weights_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("training.report.gallery.draw", lambda *_: [])
    words = shlex.split(f"{DIGITS} --out {tmp_path} --method bp --set epochs=1 --set checkpoint_keep=0")
    assert experiment.main("vision", [*words, "--set", "keep_best=false"]) == 0
    assert not (tmp_path / "models").exists()
    assert experiment.main("vision", words) == 0, capsys.readouterr().err
    assert kept(tmp_path, "digits_vgg_bp")["epoch"] == 1
    assert experiment.main("vision", [*words, "--set", "keep_best=false"]) == 0
    assert not (tmp_path / "models/digits_vgg_bp").exists(), "weights of another run than the results"
