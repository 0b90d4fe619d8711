"""`--exit` lets samples leave where the results say, and says why it cannot."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.predict.__main__ import main

from .conftest import METHODS
from .test_predict import accuracy, predicted, refused


@pytest.fixture
def changed(own: Path, tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """Return a function that copies the results of CE, and has another one change what their JSON holds."""

    def change(how: Callable[[Any], None]) -> Path:
        name = "digits_nets.cnn_ce"
        shutil.copytree(own / "out/models" / name, tmp_path / "models" / name, dirs_exist_ok=True)
        content = json.loads((own / f"out/{name}.json").read_text())
        how(content)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return change


@pytest.mark.parametrize("method", [method for method in METHODS if method != "bp"])
def test_samples_leave_where_the_results_say(method: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [exits] = json.loads((own / f"out/digits_nets.cnn_{method}.json").read_text())["early_exit"]
    within = exits["budgets"][-1]
    words = ("--dataset", "digits", "--method", method, "--exit", within["budget"])
    found = predicted(capsys, "out", "pictures", *words)
    right = accuracy(found, [Path(one["input"]).stem[-1] for one in found])
    assert right == pytest.approx(within["accuracy"], abs=1e-3)
    left = Counter(one["depth"] for one in found)
    assert [left[depth] / len(found) for depth in (1, 2)] == pytest.approx(within["shares"], abs=1e-5)


def test_probabilities_have_the_temperature_of_the_depth_at_which_a_sample_left(
    own: Path, changed: Callable[[Callable[[Any], None]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, temperatures = sorted((own / "pictures").iterdir())[::10], [0.5, 3.0]
    by_depth = [predicted(capsys, changed(lambda _: None), *pictures, "--depth", k, "--top", 10) for k in (1, 2)]

    def shares(one: dict[str, Any]) -> list[float]:
        return [share["probability"] for share in sorted(one["top"], key=lambda share: share["class"])]

    expected = [
        torch.softmax(torch.tensor([shares(one) for one in found]).log() / temperature, dim=1)
        for found, temperature in zip(by_depth, temperatures, strict=True)
    ]
    sure = expected[0].amax(1)
    middle = sorted(sure.tolist())[len(sure) // 2 : len(sure) // 2 + 2]

    def change(content: Any) -> None:
        [exits] = content["early_exit"]
        reached = {"work": 0.7, "accuracy": 100.0}
        one = {**reached, "thresholds": [sum(middle) / 2], "validation": reached}
        exits |= {"temperatures": temperatures, "curve": [one], "budgets": []}

    found = predicted(capsys, changed(change), *pictures, "--exit", 0.7, "--top", 10)
    depths = [1 if share > sum(middle) / 2 else 2 for share in sure.tolist()]
    assert [one["depth"] for one in found] == depths
    assert set(depths) == {1, 2}
    for number, (one, depth) in enumerate(zip(found, depths, strict=True)):
        assert shares(one) == pytest.approx(expected[depth - 1][number].tolist(), abs=1e-4)


def test_of_the_thresholds_within_the_budget_the_best_on_validation_are_taken(
    own: Path, changed: Callable[[Callable[[Any], None]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def point(work: float, validation: float, test: float, threshold: float | None) -> dict[str, Any]:
        reached = {"work": work, "accuracy": validation}
        return {"work": 1 - work, "accuracy": test, "thresholds": [threshold], "validation": reached}

    def change(content: Any) -> None:
        curve = [point(0.30021, 50.0, 99.0, 0.0), point(0.5, 60.0, 10.0, 0.5), point(0.6, 70.0, 20.0, None)]
        content["early_exit"][0] |= {"curve": curve, "budgets": []}

    out, picture = changed(change), next((own / "pictures").iterdir())
    for budget, says, depths in (
        (0.31, "test 99.00 % with 70.0 % of the work", {"1"}),
        (0.3003, "within 30.03 % of the work on validation: test 99.00 %", {"1"}),
        (0.5, "test 10.00 % with 50.0 %", {"1", "2"}),
        (1.0, "test 20.00 % with 40.0 %", {"2"}),
    ):
        assert main([str(out), str(picture), "--exit", str(budget)]) == 0
        printed = capsys.readouterr()
        assert f"\nearly exit within {100 * budget:g} %" in printed.err
        assert says in printed.err
        line, _, left = printed.out.rstrip("\n").partition("; depth ")
        assert line.startswith(f"{picture}: ")
        assert left.removesuffix(" of 2") in depths
    said = refused(capsys, out, picture, "--exit", 0.3)
    assert "--exit 0.3: no thresholds need as little of the work; give 0.3003 or more" in said


def test_results_without_thresholds_say_what_to_do(
    own: Path, changed: Callable[[Callable[[Any], None]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def without(content: Any) -> None:
        del content["early_exit"]

    def over_processes(content: Any) -> None:
        without(content)
        note = "early exit: not measured, because the layers are in several processes"
        content |= {"processes": 2, "notes": ["a note", note]}

    def unfinished(content: Any) -> None:
        content["turns_finished"] = 0

    def of_another_epoch(content: Any) -> None:
        content["early_exit"][0]["epoch"] += 1

    def before_validation(content: Any) -> None:
        for one in content["early_exit"][0]["curve"] + content["early_exit"][0]["budgets"]:
            del one["validation"]

    def of_other_layers(content: Any) -> None:
        content["early_exit"][0]["temperatures"].append(1.0)

    def not_possible(content: Any) -> None:
        content["early_exit"][0]["temperatures"] = [math.pi, 0.0]

    picture = next((own / "pictures").iterdir())
    for how, says in (
        (without, "is from before early exit was measured; run the command again"),
        (over_processes, "the layers are in several processes); run the command again in one process"),
        (unfinished, "--exit: turn 1 has not been finished, and early exit is measured at its end; run the command"),
        (of_another_epoch, "have been kept; run the command again"),
        (before_validation, "--exit cannot use its early_exit, which is not as this version writes it; run the"),
        (of_other_layers, "--exit cannot use its early_exit, which is not as this version writes it; run the"),
        (not_possible, "--exit: the thresholds in the results cannot be used (temperature: got 0.0"),
    ):
        assert says in refused(capsys, changed(how), picture, "--exit", 1), how
