"""The two commands from arguments to result files, in process, on small data. CPU, no network."""

from __future__ import annotations

import csv
import importlib.util
import json
import shlex
import subprocess
import sys
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from ALPackage import ALStack
from models import BPModel
from training import demo, experiment
from training.config.schema import Task
from training.report import gallery
from training.report.columns import columns
from training.trainers.al import ALTrainer
from training.trainers.trainer import cosine_lr

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "vision": "--set width=0.05 --set epochs=2 --set train_batch_size=16",
    "text": "--set embedding_dim=50 --set x_hid=8 --set y_hid=8 --set epochs=2 --set batch_size=16 --set max_len=12",
}


def command(task: Task, text: str, root: Path, out: Path) -> int:
    return experiment.main(task, shlex.split(f"{QUICK[task]} --data-root {root} --out {out} {text}"))


def rows(path: Path, *, without: tuple[str, ...] = ("train_time",)) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in without} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("task", "dataset", "model", "layers"),
    [
        ("vision", "tinyImageNet", "vgg", 4),
        ("vision", "fashionMNIST", "resnet", 5),
        ("text", "agnews", "lstm", 4),
        ("text", "imdb", "transformer", 4),
    ],
)
def test_both_methods_leave_the_promised_files(
    task: Task,
    dataset: str,
    model: str,
    layers: int,
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(task, f"{dataset.upper()} {model.upper()} -r 2 --seed 5", datasets, tmp_path) == 0
    stem = f"{dataset}_{model}"
    tables = sorted(path.name for path in tmp_path.glob("*.csv"))
    assert tables == [f"{stem}_al.csv", f"{stem}_bp.csv"]
    for method in ("al", "bp"):
        table = rows(tmp_path / f"{stem}_{method}.csv", without=())
        losses = {f"layer {n}": ("assoc", "ae") for n in range(layers)} if method == "al" else {"": ("loss",)}
        assert list(table[0]) == columns(losses)
        assert [(row["turn"], row["epoch"]) for row in table] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
        assert 0 < float(table[0]["train_time"]) < float(table[1]["train_time"])
        assert all(0 <= float(row[key]) <= 100 for row in table for key in ("train_acc", "val_acc", "test_acc"))
    for row in rows(tmp_path / f"{stem}_al.csv"):
        assert row[f"test_acc_depth_{layers}"] == row["test_acc"]
    methods = {m: json.loads((tmp_path / f"{stem}_{m}.json").read_text()) for m in ("al", "bp")}
    assert methods["al"]["seeds"] == methods["bp"]["seeds"] == [6, 7]
    assert methods["al"]["schedule"] == "continuous"
    assert methods["bp"]["threads"] == 1
    assert methods["al"]["devices"] == [layer["device"] for layer in methods["al"]["plan"]["layers"]]
    assert {name.split(":")[0] for name in methods["al"]["devices"]} == {"cpu"}
    assert len(methods["al"]["devices"]) == layers
    assert len(methods["bp"]["devices"]) == layers + 1
    exits = methods["al"]["early_exit"]
    assert [(turn["turn"], len(turn["depths"])) for turn in exits] == [(1, layers), (2, layers)]
    assert [turn["epoch"] for turn in exits] == methods["al"]["chosen_epoch"], "with the weights that are kept"
    assert "early_exit" not in methods["bp"]
    assert len(list(tmp_path.glob("*.png"))) == 4
    printed = capsys.readouterr()
    assert "test accuracy (%)" in printed.out
    assert f"{stem}_bp.json" in printed.out
    assert printed.err == "", "a bar or a warning where no terminal is"


@pytest.mark.usefixtures("no_pictures")
def test_the_same_command_gives_the_same_numbers_and_schedules_agree(datasets: Path, tmp_path: Path) -> None:
    tables = []
    for number, schedule in enumerate(["continuous", "continuous", "al-fm", "sequential"]):
        out = tmp_path / str(number)
        assert command("text", f"agnews transformer --schedule {schedule}", datasets, out) == 0
        tables.append([rows(out / f"agnews_transformer_{method}.csv") for method in ("al", "bp")])
    assert all(table == tables[0] for table in tables)
    assert command("text", "agnews transformer --seed 1", datasets, tmp_path / "other") == 0
    assert rows(tmp_path / "other/agnews_transformer_al.csv") != tables[0][0]


@pytest.mark.usefixtures("no_pictures")
def test_al_learns_through_the_command(datasets: Path, tmp_path: Path) -> None:
    assert command("vision", "tinyImageNet vggal --set epochs=12 --set augmentation=none", datasets, tmp_path) == 0
    assert [path.name for path in tmp_path.glob("*.csv")] == ["tinyImageNet_vgg_al.csv"]
    last = rows(tmp_path / "tinyImageNet_vgg_al.csv")[-1]
    assert float(last["test_acc"]) > 80.0


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("model", "asked", "bridge"), [("vgg", "auto", "pool"), ("resnet", "auto", "conv"), ("resnet", "pool", "pool")]
)
def test_the_results_say_which_bridge_was_meant(
    model: str, asked: str, bridge: str, datasets: Path, tmp_path: Path
) -> None:
    assert command("vision", f"tinyImageNet {model} --method al --set bridge={asked}", datasets, tmp_path) == 0
    block = json.loads((tmp_path / f"tinyImageNet_{model}_al.json").read_text())
    assert block["config"]["bridge"] == bridge


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("augmentation", ["none", "basic", "strong"])
def test_gray_images_are_trained_in_three_channels_where_the_config_has_three(
    augmentation: str, datasets: Path, tmp_path: Path
) -> None:
    """The config file of the earlier public code has `in_channels: 3`, for every data set."""
    line = f"digits vgg --method al --set width=0.05 --limit-train 40 --set augmentation={augmentation}"
    assert command("vision", f"{line} --set in_channels=3", datasets, tmp_path) == 0
    block = json.loads((tmp_path / "digits_vgg_al.json").read_text())
    assert block["config"]["in_channels"] == 3
    assert "digits: the gray images are repeated in three channels, as in_channels is 3" in block["notes"]
    trained = block["parameters_training"]
    assert command("vision", line, datasets, tmp_path) == 0
    block = json.loads((tmp_path / "digits_vgg_al.json").read_text())
    assert trained - block["parameters_training"] == 2 * 9 * 8  # a 3x3 convolution to 8 channels, twice


@pytest.mark.usefixtures("no_pictures")
def test_more_layers_within_an_al_layer_train_in_both_forms(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        command("text", "agnews lstm --set n_layers=2 --set bp_gpu_list=cpu,cpu,cpu,cpu,cpu", datasets, tmp_path) == 0
    )
    assert "  n_layers=2 is the number of LSTM or encoder layers within each AL layer" in capsys.readouterr().out
    for method in ("al", "bp"):
        block = json.loads((tmp_path / f"agnews_lstm_{method}.json").read_text())
        assert (block["config"]["al_layers"], block["config"]["n_layers"]) == (3, 2)
        assert "give al_layers too" in "\n".join(block["notes"])


@pytest.mark.usefixtures("no_pictures")
def test_one_method_keeps_the_other_ones_results(datasets: Path, tmp_path: Path) -> None:
    assert command("vision", "tinyImageNet vgg --method bp", datasets, tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("tinyImageNet_vgg_bp.*")}
    assert command("vision", "tinyImageNet vgg --method al", datasets, tmp_path) == 0
    assert len(before) == 2
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("vision", """tinyImageNet vgg --set al_gpu_list='["cpu","cpu","cpu"]'""", "3 entries, VGG with AL has 4"),
        ("vision", """tinyImageNet vgg --set al_gpu_list='["cpu","cpu","cpu","cuda:9"]'""", "al_gpu_list: 'cuda:9'"),
        ("vision", """tinyImageNet vgg --set bp_gpu_list='["cpu","cpu","cpu","cpu","gpu"]'""", "bp_gpu_list: 'gpu'"),
        ("vision", "tinyImageNet vgg --set in_channels=1", "in_channels: got 1, but tinyImageNet has 3"),
        ("vision", "tinyImagNet vgg", "did you mean tinyImageNet"),
        ("text", "agnews transformer --set n_heads=7", "n_heads: got 7"),
        ("text", "agnews lstn", 'did you mean "lstm"'),
        ("text", "agnews lstm --set batchsize=4", 'did you mean "batch_size"'),
        ("text", "agnews lstm --set min_len=50 --set max_len=50", "no training document"),
        ("text", "agnews lstm --set text_backend=torchtext", "requirements-torchtext.txt"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    task: Task, text: str, message: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "torchtext" in text and importlib.util.find_spec("torchtext") is not None:
        pytest.skip("torchtext is installed here, so asking for it is no mistake")
    # The mistake comes last on the command line, so that it is not overridden by the quick settings.
    quick = shlex.split(f"--data-root {datasets} --out {tmp_path} {QUICK[task]}")
    assert experiment.main(task, [*quick, *shlex.split(text)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.glob("*.csv"))


def test_data_that_must_be_placed_by_hand_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("text", "imdb lstm", tmp_path / "empty", tmp_path) == 2
    error = capsys.readouterr().err
    assert "IMDB_Dataset.csv" in error
    assert error.count("\n") == 1


def test_a_default_number_of_heads_is_fitted_with_a_notice(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("text", "agnews transformer --method al", datasets, tmp_path) == 0
    assert "n_heads is 5: 6 does not divide the model's width of 50" in capsys.readouterr().out
    block = json.loads((tmp_path / "agnews_transformer_al.json").read_text())
    assert block["config"]["n_heads"] == 5


def test_an_interruption_keeps_what_is_done(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ALTrainer.train_epoch
    calls = 0

    def interrupted(self: ALTrainer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # the first is the warm-up
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(ALTrainer, "train_epoch", interrupted)
    assert command("vision", "tinyImageNet vgg", datasets, tmp_path) == 130
    assert len(rows(tmp_path / "tinyImageNet_vgg_al.csv")) == 1
    assert not (tmp_path / "tinyImageNet_vgg_bp.csv").exists()
    printed = capsys.readouterr()
    assert "tinyImageNet_vgg_al.csv" in printed.out
    assert "interrupted: the files above hold every epoch that was finished" in printed.err


@pytest.mark.parametrize("option", ["", "-P", "-I"])
def test_the_scripts_find_their_packages_through_links_and_without_a_path(option: str, tmp_path: Path) -> None:
    """-P, as PYTHONSAFEPATH, leaves the script's folder out of the path; Python 3.10 knows only -I."""
    if option == "-P" and sys.version_info < (3, 11):
        pytest.skip("-P came with Python 3.11")
    (tmp_path / "link.py").symlink_to(ROOT / "cvmain.py")
    (tmp_path / "project").symlink_to(ROOT)
    for script in (tmp_path / "link.py", tmp_path / "project" / "nlpmain.py"):
        line = [sys.executable, *option.split(), "-W", "error", str(script), "--print-config"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["epochs"] > 0


@pytest.mark.parametrize("script", ["cvmain.py", "nlpmain.py"])
def test_the_scripts_run_from_any_folder(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--list"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert ("digits" if script == "cvmain.py" else "docstrings") in done.stdout
    wrong = subprocess.run(
        [sys.executable, str(ROOT / script), "nothing", "at-all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    lr = cosine_lr(1.0, 0.1, 10)
    assert lr(0) == 1.0
    assert lr(5) == pytest.approx(0.55)
    assert lr(10) == pytest.approx(0.1)
    assert lr(11) == pytest.approx(0.1)


def test_a_warm_up_leads_to_the_start_of_the_cosine() -> None:
    lr = cosine_lr(1.0, 0.1, 12, warmup=0.25)
    assert [lr(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert lr(3 + 9 / 2) == pytest.approx(0.55)
    assert lr(12) == lr(20) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("task", "text", "small"),
    [
        ("vision", "fashionMNIST vgg", "--set enc_dim=16 --set ae_dim=12 --set image_size=16 --set test_batch_size=64"),
        ("vision", "tinyImageNet resnet", "--set enc_dim=16 --set ae_dim=12 --set image_size=16"),
        ("text", "agnews lstm", ""),
        ("text", "agnews transformer", ""),
    ],
)
def test_the_thesis_recipe_runs(
    task: Task, text: str, small: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a small size, with a warm-up and smoothed labels besides."""
    more = "--set recipe=thesis --set warmup=0.5 --set label_smoothing=0.1"
    assert command(task, f"{text} {more} {small}", datasets, tmp_path) == 0
    dataset, model = text.split()
    config = json.loads((tmp_path / f"{dataset}_{model}_al.json").read_text())["config"]
    assert (config["association"], config["codes"]) == ("mse", "sigmoid" if task == "vision" else "tanh")
    assert (config["recipe"], config["warmup"]) == ("default", 0.5)  # some of its keys are set otherwise
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_demo_runs_both_tasks_and_ends_with_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        demo,
        "RUNS",
        tuple(
            (
                task,
                f"{text} {QUICK[task]} --set epochs=1 --set embedding_dim=8"
                if task == "text"
                else f"{text} {QUICK[task]}",
            )
            for task, text in demo.RUNS
        ),
    )
    assert demo.main(["--limit-train", "60", "--out", str(tmp_path), "--data-root", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    end = printed[printed.rindex("digits, vgg, 1 turn") :]
    assert "docstrings, lstm, 1 turn" in end
    assert end.count("peak memory (MB)") == 2
    for name in ("digits_vgg_al.csv", "docstrings_lstm_al.json", "docstrings_lstm_accuracy.png"):
        assert (tmp_path / name).exists()
        assert name in end


def test_what_the_first_command_of_the_demo_did_is_reported_when_the_second_one_fails(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = f"tinyImageNet vgg --method al {QUICK['vision']}"
    monkeypatch.setattr(demo, "RUNS", (("vision", good), ("text", "agnews lstm --set epochs=none")))
    assert demo.main(["--out", str(tmp_path), "--data-root", str(datasets)]) == 2
    printed = capsys.readouterr()
    assert "test accuracy (%)" in printed.out
    assert "tinyImageNet_vgg_al.csv" in printed.out
    assert printed.err.startswith("error: --set epochs=none")


def test_an_interruption_while_the_pictures_are_drawn_loses_no_table(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery.Gallery, "draw_now_and_then", lambda *_: None)
    monkeypatch.setattr(gallery, "draw", interrupted)
    assert command("vision", "tinyImageNet vgg --method al", datasets, tmp_path) == 130
    printed = capsys.readouterr()
    assert "test accuracy (%)" in printed.out
    assert "tinyImageNet_vgg_al.csv" in printed.out


def test_a_foreign_file_of_the_other_method_costs_no_result(
    datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vision", "tinyImageNet vgg --method bp", datasets, tmp_path) == 0
    (tmp_path / "tinyImageNet_vgg_bp.csv").write_text("a,b\n1,2\n")
    assert command("vision", "tinyImageNet vgg --method al", datasets, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "note: no pictures:" in printed
    assert "tinyImageNet_vgg_al.csv" in printed


def _is_ours(file: Path) -> bool:
    return file.is_relative_to(ROOT) and "site-packages" not in file.parts


def test_from_main_to_the_first_step_there_are_at_most_nine_frames(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a fault: 15 frames in 8 files, four of which only caught exceptions."""
    stacks: list[list[str]] = []

    class Probe(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            frames = traceback.extract_stack()
            # Torch too lies in this folder where `make` has put its environment there.
            own = [frame.name for frame in frames if _is_ours(Path(frame.filename))]
            stacks.append(own[own.index("main") : -1])
            return super().step(closure)

    monkeypatch.setattr("models.assemble.adamw", Probe)
    command("vision", "tinyImageNet vgg --method al --schedule sequential", datasets, tmp_path)
    # Not the rehearsal's, nor those of the measuring.
    frames = next(stack for stack in stacks if "train_turn" in stack)
    assert frames[:5] == ["main", "run", "train_method", "train_turn", "train_epoch"]
    assert frames[-2:] == ["backward_and_update", "update"]
    assert len(frames) <= 9, frames


def test_a_turn_never_meets_the_model_of_the_one_before(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a fault: turn 2's model was built while turn 1's was alive, which the peak memory then showed."""
    built: list[weakref.ref[torch.nn.Module]] = []
    alive: list[int] = []
    set_device = BPModel.set_device, ALStack.set_device

    def counting(original: Any) -> Any:
        def set_device(self: Any, devices: Any) -> Any:
            alive.append(sum(ref() is not None and ref() is not self for ref in built))
            built.append(weakref.ref(self))
            return original(self, devices)

        return set_device

    for kind, original in zip((BPModel, ALStack), set_device, strict=True):
        monkeypatch.setattr(kind, "set_device", counting(original))
    assert command("vision", "tinyImageNet vgg -r 3 --workers 2", datasets, tmp_path) == 0
    assert len(built) == 2 * (1 + 3), "a rehearsal and three turns each"
    assert alive == [0] * len(built)


def test_every_turn_is_prepared_before_its_clock_starts(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a bug: checks and the capture of CUDA graphs were part of the first epoch's training time."""
    calls: list[str] = []
    for name in ("prepare", "train_epoch"):
        original = getattr(ALTrainer, name)

        def noted(self: Any, *arguments: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(ALTrainer, name, noted)
    assert command("vision", "tinyImageNet vgg --method al -r 2", datasets, tmp_path) == 0
    assert calls[0] == "train_epoch", "the rehearsal"
    turn = ["prepare", *["train_epoch"] * (len(calls[1:]) // 2 - 1)]
    assert calls[1:] == [*turn, *turn]
