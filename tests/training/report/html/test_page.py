"""The report of a run: it says what the JSON says, in words that the turns allow, for every shape of run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from training.errors import UsageError
from training.report.html.page import report
from training.report.results import read_folder

from .made import EARLIER_TIMELINE, EARLIER_USE, NASTY, TIMELINE, USE, exits, make
from .reader import Reader, check


def shown(out: Path, *methods: str) -> Reader:
    (group,) = read_folder(out).runs()
    return check(report(group, methods))


def test_the_table_has_the_figures_of_the_json(tmp_path: Path) -> None:
    make(tmp_path, "al", base=[90.0, 92.0, 91.0], turns=3, use=USE, timeline=TIMELINE)
    make(tmp_path, "bp", base=[89.0, 92.5, 90.0], turns=3)
    page = shown(tmp_path)
    contents = [json.loads((tmp_path / f"digits_vgg_{method}.json").read_text()) for method in ("al", "bp")]
    assert page.row("test accuracy (%)") == [
        f"{content['test_acc_mean']:.2f} ± {content['test_acc_std']:.2f}" for content in contents
    ]
    assert page.row("samples/s") == [f"{content['samples_per_s']:,.0f}" for content in contents]
    assert page.row("epoch chosen on validation") == ["3, 3, 3", "3, 3, 3"]
    assert page.row("parameters in training") == ["12,345", "12,345"]
    assert page.row("state") == ["finished", "finished"]
    assert page.row("AL, turn 2") == ["2", "3", "92.00", "92.00", "6.0"]
    assert page.row("2")[:2] == ["83.33", "84.33"]  # the mean of epoch 2, validation and test
    assert page.row("cpu:1")[1:6] == ["70 %", "20 %", "1 %", "9 %", "l1 61 %, l0 39 %"]
    assert page.row("l0") == ["50 %", "12.3", "cpu:0 61 %, cpu:1 39 %"]
    assert "epoch 3\nAL: 91.00 (90.00 to 92.00) %\nBP: 90.50 (89.00 to 92.50) %" in page.tips
    assert any("l1, backward, batch 1" in tip for tip in page.tips)
    for told in ("a note about the data", "2026-11-28 10:00 UTC", "python cvmain.py", "base_lr", "epochs"):
        assert told in page.text


def test_early_exit_is_a_curve_for_each_turn_the_fixed_depths_and_what_leaves_where(tmp_path: Path) -> None:
    make(tmp_path, "al", exits=[exits(1, 90.0), exits(2, 92.0)])
    make(tmp_path, "bp")
    page = shown(tmp_path)
    assert page.row("75 %") == ["60.0", "89.00", "70.0", "30.0"]
    assert page.row("100 %") == ["100.0", "91.00", "0.0", "100.0"]
    assert "AL, turn 2, 62.5 % of the work: 91.00 %" in page.tips
    assert "AL, fixed depth, 40.0 % of the work: 86.00 (85.00 to 87.00) %" in page.tips
    assert "with the weights after epoch 3" in page.text
    assert "BP, fixed depth" not in " ".join(page.tips)


def test_a_run_without_early_exit_has_no_section_of_it(tmp_path: Path) -> None:
    make(tmp_path, "al")
    assert "Early exit" not in shown(tmp_path).text


def test_a_timeline_names_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path, "al", use=USE, timeline=TIMELINE)
    page = shown(tmp_path)
    assert any(tip.startswith("wait for data: 0.50 ms") for tip in page.tips)
    assert not any(tip.startswith("inference") for tip in page.tips)
    assert "idle" in page.text
    assert "waits for data" in page.text


def test_what_was_recorded_when_workers_owned_layers_is_still_shown(tmp_path: Path) -> None:
    make(tmp_path, "al", use=EARLIER_USE, timeline=EARLIER_TIMELINE)
    page = shown(tmp_path)
    assert page.row("cpu:0")[1:6] == ["70 %", "20 %", "1 %", "9 %", "l0"]
    assert page.row("cpu:1")[1:6] == ["70 %", "0 %", "1 %", "29 %", "l1"], "it waited for the first one, not for data"
    assert sum(tip.startswith("idle: 1.00 ms") for tip in page.tips) == 2


TURNS: dict[str, tuple[list[float], list[float], list[str]]] = {
    "one turn": (
        [90.0],
        [80.0],
        ["AL is 10.00 percentage points above BP", "One turn has no spread", "at least three turns would be needed"],
    ),
    "two turns": ([90.0, 92.0], [80.0, 85.0], ["8.50 percentage points above BP on average", "too few"]),
    "a difference": (
        [90.0, 91.0, 92.0, 90.5, 91.5],
        [80.0, 82.0, 81.0, 80.5, 82.0],
        ["AL is 9.90 percentage points above BP", "by turn, from +9.00 to +11.00", "+8.98 to +10.82", "excludes zero"],
    ),
    "the other way": (
        [80.0, 81.0, 82.5],
        [90.0, 92.0, 91.0],
        ["BP is 9.83 percentage points above AL", "excludes zero"],
    ),
    "none": ([90.0, 91.0, 92.0], [91.0, 90.0, 91.5], ["includes zero: these turns do not show which is better"]),
    "level": ([90.0, 91.0, 92.0], [90.0, 91.0, 92.0], ["AL and BP are level in every turn"]),
    "always the same": ([90.0, 91.0, 92.0], [89.0, 90.0, 91.0], ["does not vary between the turns"]),
}


@pytest.mark.parametrize("case", TURNS)
def test_the_words_say_what_the_turns_allow(case: str, tmp_path: Path) -> None:
    al, bp, expected = TURNS[case]
    for method, base in (("al", al), ("bp", bp)):
        make(tmp_path, method, base=base, turns=len(base))
    text = shown(tmp_path).text
    for part in expected:
        assert part in text
    verdict = {"a difference", "the other way"}
    assert ("the seeds alone do not explain the difference" in text) == (case in verdict)


def test_an_unfinished_run_says_so_and_has_no_verdict(tmp_path: Path) -> None:
    make(tmp_path, "al", turns=3, epochs=20, finished=1, done=[20, 4])
    make(tmp_path, "bp", turns=3, epochs=20, finished=0, done=[2])
    page = shown(tmp_path)
    assert "AL is at turn 2 of 3, epoch 4 of 20 so far and BP is at turn 1 of 3, epoch 2 of 20 so far" in page.text
    assert "Not finished" in page.text
    assert "Before AL and BP have both finished a turn, there is nothing to compare." in page.text
    make(tmp_path, "bp", turns=3, epochs=20, finished=2, done=[20, 20])
    text = shown(tmp_path).text
    assert "BP is at 2 of 3 turns so far" in text
    assert "in the turns that both have finished" in text
    assert "more turns are to come" in text


def test_one_method_alone(tmp_path: Path) -> None:
    make(tmp_path, "al", turns=1, epochs=1, layers=1)
    text = shown(tmp_path).text
    assert "AL trained vgg on digits (1,000 training samples), in one turn of 1 epoch." in text
    assert "above" not in text


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_losses_that_are_no_numbers_are_gaps(loss: float, tmp_path: Path) -> None:
    make(tmp_path, "al", loss=loss)
    make(tmp_path, "bp")
    text = shown(tmp_path).text
    assert ("Losses of AL are not finite, first in turn 1, epoch 1" in text) == (not math.isfinite(loss))


def test_other_methods_with_other_losses(tmp_path: Path) -> None:
    losses = {"first": ["distance"], "second": ["distance", "reach"], "head": ["loss"]}
    make(tmp_path, "other", losses=losses)
    make(tmp_path, "third", losses={"first": ["loss"]})
    page = shown(tmp_path, "other", "third")
    assert "other: distance" in page.text
    assert "second" in page.text  # the layer, in the legend
    assert any(tip.startswith("epoch 1\nfirst: ") for tip in page.tips)


@pytest.mark.slow
def test_a_deep_and_long_run_stays_small(tmp_path: Path) -> None:
    for method in ("al", "bp"):
        make(tmp_path, method, turns=2, epochs=300, layers=24, notes=[f"note {n}" for n in range(500)])
    page = shown(tmp_path)
    assert "492 more" in page.text
    assert "every 3 epochs" in page.text


def test_texts_of_the_user_stay_texts(tmp_path: Path) -> None:
    """Names of layers and devices, the configuration, notes, the command: whatever they hold."""
    wild = f"{NASTY}\udcff"
    make(
        tmp_path,
        "al",
        losses={wild: ["assoc"], f"2 {wild}": [NASTY]},
        config={wild: wild, "list": [wild], "path": "/ä/<b>"},
        notes=[wild],
        devices=[wild, wild],
        provenance={"command": ["cvmain.py", wild], "versions": {wild: wild}, "git_commit": wild, "platform": wild},
        use={
            **USE,
            "bottleneck": wild,
            "advice": wild,
            "devices": [{**USE["devices"][0], "device": wild, "layers": [wild], "ran": {wild: 100.0}}],
            "layers": [{"layer": wild, "share": 100.0, "ms_per_batch": 1.0, "workers": {wild: 100.0}}],
        },
        timeline={**TIMELINE, "workers": [wild, wild], "layers": [wild]},
        plan={"layers": [{"name": wild, "device": wild, "forward_ms": 1, "backward_ms": 2, "bytes": 3}]},
    )
    page = shown(tmp_path)
    told = " ".join(f"{NASTY}\\udcff".replace("\x07", "\\x07").split())
    assert page.text.count(told) >= 10
    assert any("<script>alert(1)</script>" in tip for tip in page.tips)


def test_the_differences_of_the_configurations_are_marked(tmp_path: Path) -> None:
    make(tmp_path, "al", config={"workers": 2, "same": 1})
    make(tmp_path, "bp", config={"workers": 1, "same": 1})
    (group,) = read_folder(tmp_path).runs()
    page = report(group)
    assert "The methods differ in workers (marked below)" in check(page).text
    assert '<div class="differs"><dt>workers</dt><dd><span><strong>AL </strong>2</span>' in page


def test_what_cannot_be_compared_is_named_and_left_out(tmp_path: Path) -> None:
    make(tmp_path, "bp", config={"base_lr": 0.5})
    make(tmp_path, "third")
    make(tmp_path, "al")
    (tmp_path / "digits_vgg_third.csv").write_text("a,b\n1,2\n")
    page = shown(tmp_path, "al")
    assert page.headings[0] == (1, "digits, vgg")
    assert "BP (another configuration (base_lr))" in page.text
    assert "third (digits_vgg_third.csv: is not a file of results" in page.text
    assert page.row("test accuracy (%)") == ["90.00 ± 0.00"]
    make(tmp_path, "bp", seeds=[8, 9])
    assert "BP (other seeds (8, 9 instead of 1, 2))" in shown(tmp_path, "al").text


def test_without_a_table_there_is_no_page(tmp_path: Path) -> None:
    make(tmp_path, "al")
    (tmp_path / "digits_vgg_al.csv").unlink()
    (group,) = read_folder(tmp_path).runs()
    with pytest.raises(UsageError, match=r"digits_vgg_al\.csv: is not a file of results"):
        report(group)


@pytest.mark.parametrize(
    "change",
    [
        {"provenance": {}},
        {"provenance": {"date": 3, "command": 4, "versions": 5, "device_names": 6}},
        {"plan": {"layers": "none"}},
        {"config": {}},
        {"devices": []},
    ],
)
def test_what_is_missing_is_left_out(change: dict[str, Any], tmp_path: Path) -> None:
    make(tmp_path, "al")
    path = tmp_path / "digits_vgg_al.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    shown(tmp_path)


def test_a_difference_that_rounds_to_zero_has_no_sign(tmp_path: Path) -> None:
    make(tmp_path, "al", turns=3, base=[90.0, 91.0, 92.001])
    make(tmp_path, "bp", turns=3, base=[90.0, 91.0, 95.0])
    assert "by turn, from +0.00 to +3.00" in shown(tmp_path).text


def test_times_that_overlap_say_nothing_of_speed(tmp_path: Path) -> None:
    for method, seconds, speed in (("al", [4.0, 9.0], 500.0), ("bp", [6.0, 8.0], 400.0)):
        make(tmp_path, method)
        path = tmp_path / f"digits_vgg_{method}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train_time": seconds, "samples_per_s": speed}))
    assert "AL was 1.25 times as fast, but the times of the turns overlap." in shown(tmp_path).text
    path.write_text(path.read_text().replace("[6.0, 8.0]", "[9.5, 9.6]"))
    assert "So AL was 1.25 times as fast as BP here." in shown(tmp_path).text


def test_the_mean_of_unfinished_turns_says_so(tmp_path: Path) -> None:
    make(tmp_path, "al", turns=3, epochs=20, finished=1, done=[20, 4])
    assert "(mean ± standard deviation over the turns, unfinished ones included)" in shown(tmp_path).text


def test_the_command_can_be_run_again_as_it_stands(tmp_path: Path) -> None:
    make(tmp_path, "al", provenance={"command": ["cvmain.py", "--set", 'al_gpu_list=["cpu", "cpu"]']})
    assert """python cvmain.py --set 'al_gpu_list=["cpu", "cpu"]'""" in shown(tmp_path).text


def test_the_same_epoch_in_many_turns_is_told_once(tmp_path: Path) -> None:
    make(tmp_path, "al", turns=6, base=90.0)
    assert shown(tmp_path).row("epoch chosen on validation") == ["3"]
