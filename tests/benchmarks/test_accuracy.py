"""The accuracy benchmark: what it refuses, what it chooses on, its figures, and that no finished run is run again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import runner
from benchmarks.accuracy.choice import best, chosen
from benchmarks.accuracy.grid import Grid, final_runs, read_grid, search_runs
from benchmarks.accuracy.records import Records, results_path, sole_runner
from benchmarks.accuracy.table import markdown, searched, summary, time_to, trials

BOTH = ("lr", "base_lr", "end_lr", "warmup", "weight_decay", "label_smoothing", "dropout", "word_dropout")
TINY = {"epochs": 2, "width": 0.05, "ae_dim": 8, "enc_dim": 8, "train_batch_size": 32}
#: A command that writes what the real one does, at once; a rate of 0.5 makes it fail, one of 0.25 takes its time.
FAKE = """
import json, os, sys, time
from pathlib import Path
argv = sys.argv[1:]
of = {flag: value for flag, value in zip(argv, argv[1:]) if flag.startswith("--") and flag != "--set"}
rate = next((float(part[8:]) for part in argv if part.startswith("base_lr=")), 0.1)
if rate == 0.5:
    sys.exit("first line\\nit went wrong")
if rate == 0.25:
    Path("began").write_text(f"{os.getpid()} ")
    time.sleep(1.5)
out, method = Path(of["--out"]), of["--method"]
out.mkdir()
with open(out / f"digits_vgg_{method}.csv", "w") as file:
    file.write("turn,epoch,train_acc,val_acc,test_acc,train_time,loss\\n1,1,50,%s,60,2.5,1\\n" % (100 * rate))
block = dict(train_samples=9, parameters_training=7, parameters_inference=5, threads=1, config={}, provenance={
    "command": ["/secret"], "device_names": {"cpu": "CPU"}, "versions": {"python": "3", "torch": "2"}, "cores": 1})
block["notes"] = ["vectors found in " + of["--data-root"] + "/vectors.txt"]
(out / f"digits_vgg_{method}.json").write_text(json.dumps(block))
print("digits, vgg: 9 training; 10 classes")
"""


def grid_of(al: list[dict[str, Any]], bp: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    cell = {"name": "Digits, VGG", "dataset": "digits", "model": "vgg", "limit_train": 64, "settings": TINY}
    return {
        "about": "A sample.",
        "seeds": [0, 1, 2],
        "search_seed": 100,
        "cells": [{**cell, "search": {"al": al, "bp": bp}}],
        **more,
    }


def saved(content: dict[str, Any], folder: Path) -> Path:
    path = folder / "grid.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cvmain.py").write_text(FAKE)
    monkeypatch.setattr(runner, "ROOT", tmp_path)


def call(action: str, path: Path, *more: str) -> int:
    return accuracy.main([action, "--grid", str(path), "--data-root", str(path.parent / "data"), *more])


TWO = [{"base_lr": 0.1}, {"base_lr": 0.2}]
CELL = grid_of([{}], [{}])["cells"][0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (grid_of([{}], TWO), "cells.0: AL has 1 trials and BP 2; give all the same number"),
        (grid_of([], []), "cells.0.search.al: List should have at least 1 item"),
        (grid_of([{}, {"base_lr": 0.001}], TWO), "the trial is the same as number 1"),
        (grid_of([{}], [{"base_lrr": 1}]), '"base_lrr" is not a key: did you mean "base_lr"?'),
        (grid_of([{}], [{"base_lr": -1}]), "Digits, VGG, BP: --set base_lr=-1: base_lr: got -1; expected"),
        (grid_of([{"seed": 1}], [{}]), 'cells.0: "seed" is not a cell\'s to set; leave it out'),
        (grid_of([{}], [{}], seeds=[0, 1]), "seeds: List should have at least 3 items"),
        (grid_of([{}], [{}], seeds=[0, 1, 1]), "seeds: one is there twice"),
        (grid_of([{}], [{}], search_seed=2), "search_seed: 2 is among the seeds that are reported"),
        (grid_of([{}], [{}], cell=[]), "cell: Extra inputs are not permitted"),
        (grid_of([{}], [{}], cells=[CELL, CELL]), 'two cells have the name "Digits, VGG"'),
        (grid_of([{}], [{}], cells=[{**CELL, "dataset": "digit"}]), "did you mean digits?"),
        (grid_of([{}], [{}], cells=[{**CELL, "model": "lstm"}]), "digits is not a text data set"),
    ],
)
def test_a_grid_that_is_not_fair_or_not_clear_is_refused(
    content: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("search", saved(content, tmp_path)) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith(f"error: {tmp_path / 'grid.json'}: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"about": ', "broken JSON: Expecting value"),
        ('{"about": "", "about": ""}', 'broken JSON: "about" is there twice'),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_holds_no_grid_is_refused(
    text: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.json"
    if text is not None:
        path.write_text(text)
    assert call("table", path) == 2
    assert words in capsys.readouterr().err


def record(run: Any, rows: Sequence[tuple[float, float]], depths: tuple[float, ...] = ()) -> dict[str, Any]:
    """Return a finished run with (validation, test) of each epoch, each of which took 10 s."""
    by_depth = {f"test_acc_depth_{i}": value for i, value in enumerate(depths, 1)}
    return {
        "command": run.command,
        "rows": [
            {"epoch": e, "train_acc": 1.0, "val_acc": val, "test_acc": test, "train_time": 10.0 * e, **by_depth}
            for e, (val, test) in enumerate(rows, 1)
        ],
        "classes": 10,
        "wall_s": 31.0 + run.seed,
        "parameters_training": 12345,
        "parameters_inference": 234,
        "provenance": {
            "device_names": {"cpu": "A CPU"},
            "versions": {"python": "3.11", "torch": "2.5"},
            "git_commit": "0123456789abcdef",
            "cores": 1,
        },
    }


def by_hand() -> dict[str, Any]:
    """Return results whose figures are easily worked out, and whose test accuracies would choose otherwise."""
    grid = Grid.model_validate(grid_of(TWO, TWO))
    bp1, bp2, al1, al2 = search_runs(grid)
    runs = {
        bp1.command: record(bp1, [(70, 99), (80, 60)]),
        bp2.command: record(bp2, [(80, 90)]),  # a tie on validation: the first trial is taken
        al1.command: record(al1, [(50, 99)]),
        al2.command: record(al2, [(51, 20), (51, 30)]),  # a tie of epochs: the first one is taken
    }
    choice = chosen(grid, runs)
    assert choice == {("Digits, VGG", "bp"): bp1, ("Digits, VGG", "al"): al2}
    rows: dict[str, list[Sequence[tuple[float, float]]]] = {
        "bp": [[(70, 50), (90, 80), (80, 80)], [(90, 82), (1, 70), (1, 80)], [(90, 84), (1, 70), (1, 80)]],
        "al": [[(50, 30), (60, 76)], [(50, 20), (60, 77)], [(50, 77), (60, 75)]],
    }
    for run in final_runs(grid, choice):
        runs[run.command] = record(run, rows[run.method][run.seed], (40.0, 76.0) if run.method == "al" else ())
    return {"grid": grid.model_dump(), "runs": list(runs.values())}


def test_the_figures_are_those_of_the_records() -> None:
    results = by_hand()
    lines = markdown(results).splitlines()
    assert lines[0] == (
        "A sample. A CPU, cores per run: 1; Python 3.11, torch 2.5; commits 0123456. "
        "6 runs, the longest took 33 s, loading and evaluations included."
    )
    # BP 80, 82, 84; AL 76, 77, 75, each where validation is best, not test.
    accuracies = "| Digits, VGG | 82.00 ± 2.00 | 76.00 ± 1.00 | −6.00 |"
    assert accuracies + " 40.00 / 76.00 | 3, 3 |" in lines
    assert accuracies in summary(results).splitlines()
    # BP ends at 80 in the mean, so the goal is 76: BP is there after 2, 1 and 1 epochs, AL after 2, 2 and 1.
    assert "| Digits, VGG | BP | 3 | 1.3 | 30.0 | 13.3 | 12,345 | 234 |" in lines
    assert "| Digits, VGG | AL | 2 | 2.0 | 20.0 | 16.7 | 12,345 | 234 |" in lines
    assert "| Digits, VGG | AL | 2 | `base_lr=0.2` | 51.00 |" in lines
    assert "| Digits, VGG | 20.00 | 10.00 |" in lines


def test_a_goal_that_is_missed_is_told_and_no_mean_is_made_of_the_rest() -> None:
    results = by_hand()
    last = results["runs"][-1]
    last["rows"][0]["test_acc"] = 70
    last["rows"][1]["test_acc"] = 75.9
    assert time_to(last, 76) is None
    assert "| Digits, VGG | AL | 2 | 2.0 | 20.0 | not reached in 1 of 3 |" in markdown(results)


def test_all_trials_are_shown_and_the_chosen_marked() -> None:
    lines = trials(by_hand()).splitlines()
    assert lines[2] == "| Digits, VGG | BP | `base_lr=0.1` | **80.00** | 60.00 |"
    assert lines[3] == "| Digits, VGG | BP | `base_lr=0.2` | 80.00 | 90.00 |"
    assert len(lines) == 6


def test_without_final_runs_the_chosen_trials_are_compared() -> None:
    results = by_hand()
    results["runs"] = results["runs"][:4]
    said = searched(results)
    assert "2 runs, the longest took" in said
    assert "| Digits, VGG | 60.00 | 20.00 | −40.00 |" in said
    assert said.endswith(trials(results))
    results["runs"] = results["runs"][1:]
    assert "| Digits, VGG | – |" in searched(results)


def test_what_is_not_run_yet_is_a_dash() -> None:
    results = by_hand()
    results["runs"] = results["runs"][:3]
    assert "| Digits, VGG | – | – | – | – | 0, 0 |" in markdown(results)


@pytest.mark.parametrize(("name", "open_runs"), [("cpu", 0), ("gpu", 24)])
def test_committed_results_are_those_of_todays_commands(name: str, open_runs: int) -> None:
    """They were recorded when `n_layers` was the number of AL layers: in today's keys they are the same networks."""
    path = Path(accuracy.__file__).with_name(f"{name}.json")
    grid = read_grid(path)
    records = Records(results_path(path), grid)
    runs = search_runs(grid) + final_runs(grid, chosen(grid, records.runs))
    assert len(records.missing(runs)) == open_runs  # raises where a finished run's config is another one today
    texts = [record[config] for record in records.runs.values() for config in ("asked", "config")]
    layers = [(config["al_layers"], config["n_layers"]) for config in texts if "x_hid" in config]
    assert set(layers) == {(3, 1)}


def test_the_results_lie_beside_the_grid() -> None:
    assert results_path(Path("a/cpu.json")) == Path("a/results.json")
    assert results_path(Path("a/full.json")) == Path("a/full.results.json")


@pytest.mark.usefixtures("fake")
def test_the_search_comes_first_then_the_seeds_of_its_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(grid_of(TWO, TWO), tmp_path)
    assert call("search", path, "--method", "al") == 0
    capsys.readouterr()
    assert call("final", path) == 2
    words = "error: the search is not complete for Digits, VGG (BP): run search first\n"
    assert capsys.readouterr().err == words
    assert call("final", path, "--method", "al") == 0
    assert call("search", path, "--cells", "no such") == 2
    words = 'error: --cells "no such": no cell has such a name; the cells are Digits, VGG\n'
    assert capsys.readouterr().err == words
    assert call("search", path, "--cells", "digits") == 0
    assert call("final", path) == 0
    runs = json.loads((tmp_path / "grid.results.json").read_text())["runs"]
    assert sorted((run["method"], run["trial"]["base_lr"], run["seed"]) for run in runs if run["phase"] == "final") == [
        (method, 0.2, seed) for method in ("al", "bp") for seed in (0, 1, 2)
    ]
    assert len(runs) == 10
    assert "/secret" not in str(runs)
    assert str(tmp_path) not in str(runs)
    capsys.readouterr()
    assert call("table", path) == 0
    assert "| Digits, VGG | 60.00 ± 0.00 | 60.00 ± 0.00 | +0.00 | – | 3, 3 |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cpu", "full", "gpu"])
def test_the_shipped_grids_are_sound_and_search_the_same_rates_for_both(name: str) -> None:
    grid = read_grid(accuracy.HERE / f"{name}.json")
    assert {cell.model for cell in grid.cells} == {"lstm", "transformer", "vgg", "resnet"}
    for cell in grid.cells:
        shared = [
            [{key: trial[key] for key in trial if key in BOTH} for trial in trials] for trials in cell.search.values()
        ]
        assert shared[0] == shared[1]


@pytest.mark.usefixtures("fake")
def test_one_command_at_a_time_adds_to_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(grid_of(TWO, TWO), tmp_path)
    results = results_path(path)
    with sole_runner(results):
        assert call("search", path) == 2
    assert "another command is adding to it" in capsys.readouterr().err
    assert not results.exists()
    assert call("search", path) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir() if "results" in entry.name) == [results.name]


@pytest.mark.usefixtures("fake")
def test_no_path_of_this_machine_is_recorded(tmp_path: Path) -> None:
    path = saved(grid_of(TWO, TWO), tmp_path)
    assert call("search", path) == 0
    recorded = results_path(path).read_text()
    assert str(tmp_path) not in recorded
    assert {tuple(run["notes"]) for run in json.loads(recorded)["runs"]} == {("vectors found in vectors.txt",)}


def test_text_without_its_word_vectors_is_refused_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = {"name": "IMDb", "dataset": "imdb", "model": "lstm", "search": {"al": [{}], "bp": [{}]}}
    path = saved(grid_of([{}], [{}], cells=[{**cell, "settings": {"embedding_dim": 50}}]), tmp_path)
    assert call("search", path) == 2
    assert capsys.readouterr().err.startswith(f"error: IMDb: no glove.6B.50d.txt in {tmp_path / 'data'}; put it there")
    assert not results_path(path).exists()


@pytest.mark.usefixtures("fake")
def test_results_that_cannot_be_written_are_refused_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(grid_of(TWO, TWO), tmp_path)
    assert call("search", path, "--results", str(tmp_path / "nowhere" / "results.json")) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_a_run_that_leaves_no_results_is_told_as_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cvmain.py").write_text("print('digits, vgg: 9 training; 10 classes')")
    assert call("search", saved(grid_of(TWO, TWO), tmp_path)) == 1
    assert "its results cannot be read (FileNotFoundError" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_a_run_that_fails_keeps_the_others_and_begins_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bp = [{"base_lr": 0.25}, {"base_lr": 0.5}, {"base_lr": 0.1}]
    path = saved(grid_of(bp, bp), tmp_path)
    assert call("search", path, "--method", "bp", "--at-once", "2") == 1
    assert capsys.readouterr().err == (
        "failed: Digits, VGG, BP, base_lr=0.5, seed 100: exit code 1\nfirst line\nit went wrong\n"
    )
    runs = json.loads((tmp_path / "grid.results.json").read_text())["runs"]
    assert [run["trial"] for run in runs] == [{"base_lr": 0.25}]


@pytest.mark.usefixtures("fake")
def test_an_interruption_ends_the_run_at_work_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [{"base_lr": 0.1}, {"base_lr": 0.25}, {"base_lr": 0.2}]
    path, began = saved(grid_of(trials, trials), tmp_path), tmp_path / "began"

    def interrupt() -> None:
        while not (began.exists() and began.read_text().endswith(" ")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert call("search", path, "--method", "al", "--at-once", "1") == 143
    thread.join()
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)
    results = tmp_path / "grid.results.json"
    assert [run["trial"] for run in json.loads(results.read_text())["runs"]] == trials[:1]
    assert call("search", path, "--method", "al", "--at-once", "1") == 0
    assert capsys.readouterr().out.startswith("3 runs, 1 of them finished before\n")
    assert [run["trial"] for run in json.loads(results.read_text())["runs"]] == trials


@pytest.mark.usefixtures("fake")
def test_results_under_other_defaults_are_not_mixed_with_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(grid_of(TWO, TWO), tmp_path)
    assert call("search", path) == 0
    results = tmp_path / "grid.results.json"
    results.write_text(results.read_text().replace('"act": "relu"', '"act": "gelu"', 1))
    capsys.readouterr()
    assert call("search", path) == 2
    assert "the config file has another act now than when this was run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_finished_run_is_never_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(grid_of([{}], [{}]), tmp_path)
    assert call("search", path, "--method", "al") == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "1 runs, 0 of them finished before"
    assert len(first) == 2
    results = tmp_path / "grid.results.json"
    before = results.read_bytes()
    (run,) = json.loads(before)["runs"]
    assert [row["epoch"] for row in run["rows"]] == [1, 2]
    assert run["rows"][0]["test_acc_depth_4"] == run["rows"][0]["test_acc"]
    assert best(run)["val_acc"] == max(row["val_acc"] for row in run["rows"])
    assert run["classes"] == 10
    assert run["parameters_training"] > run["parameters_inference"]
    assert run["command"].startswith("python cvmain.py digits vgg --method al --seed 100 --limit-train 64 --set ")
    assert {key: run["config"][key] for key in TINY} == TINY
    assert str(tmp_path) not in before.decode()
    assert call("search", path, "--method", "al") == 0
    assert capsys.readouterr().out == "1 runs, 1 of them finished before\n"
    assert results.read_bytes() == before
    choice = chosen(read_grid(path), {run["command"]: run})
    assert choice.keys() == {("Digits, VGG", "al")}
