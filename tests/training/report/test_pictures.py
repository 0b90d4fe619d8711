"""Pictures come out for every shape of run, and the table says what the summaries say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from models import registry
from training.errors import UsageError
from training.report import pictures as report
from training.report.comparison import WIDEST, comparison_table
from training.report.look import OTHERS, styles
from training.report.pictures import draw
from training.report.run_info import RunInfo
from training.report.run_log import RunLog
from training.report.summary import MethodSummary

from .html.made import exits, make

TITLES = {"assoc": "associated loss", "ae": "auto-encoder loss"}


def info(method: str, layers: int = 4, **changes: Any) -> RunInfo:
    local = {"al": ["assoc", "ae"], "other": ["loss"]}
    values: dict[str, Any] = {
        "config": {},
        "seeds": [0],
        "train_samples": 10,
        "parameters_training": 1234567,
        "parameters_inference": 1000,
        "threads": 1,
        "schedule": None,
        "devices": ["cpu"],
        "losses": {"": ["loss"]} if method == "bp" else {f"layer_{n}": local.get(method, []) for n in range(layers)},
        "loss_titles": TITLES if method == "al" else {},
    }
    return RunInfo(**(values | changes))


def run(
    out: Path, method: str, *, turns: int = 1, epochs: int = 1, layers: int = 4, loss: float = 0.5, **changes: Any
) -> MethodSummary:
    log = RunLog(out, "digits", "vgg", method, info(method, layers, **changes))
    for turn in range(turns):
        for epoch in range(1, epochs + 1):
            acc = 90.0 - 50 / epoch + turn
            values = {"assoc": loss, "loss": loss, "ae": 1e-3 ** (epoch / epochs)}
            log.add(
                turn,
                epoch,
                train_acc=acc,
                val_acc=acc,
                test_acc=[acc] if method == "bp" else [acc - layers + depth for depth in range(1, layers)] + [acc],
                train_time=2.0 * epoch,
                losses={layer: {name: values[name] for name in names} for layer, names in log.info.losses.items()},
            )
    log.finish_turn(turns - 1, peak_memory_mb=321.0)
    summary = log.summary()
    assert summary is not None
    return summary


@pytest.mark.parametrize(
    ("methods", "turns", "epochs", "layers"),
    [
        (["al"], 1, 1, 4),
        (["bp"], 1, 1, 4),
        (["al", "bp"], 3, 4, 4),
        (["al", "bp"], 2, 40, 13),
        (["al"], 1, 2, 1),
        (["bp", "other"], 1, 2, 3),
        (["al", "bp", "other"], 2, 2, 4),
    ],
)
def test_pictures_for_every_shape_of_run(
    tmp_path: Path, methods: list[str], turns: int, epochs: int, layers: int
) -> None:
    for method in methods:
        run(tmp_path, method, turns=turns, epochs=epochs, layers=layers)
    pictures = draw(tmp_path, "digits", "vgg", methods)
    kinds = ["accuracy", "loss", *(["depth"] if methods != ["bp"] else [])]
    assert pictures == [tmp_path / f"digits_vgg_{kind}.png" for kind in kinds]
    for picture in pictures:
        pixels = imread(picture)
        assert min(pixels.shape[:2]) >= 400
        assert pixels[..., :3].std() > 0.02  # something is drawn


def test_what_the_accuracy_picture_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(report, "_save", keep)
    for method in ("al", "bp"):
        run(tmp_path, method, turns=2, epochs=5)
    draw(tmp_path, "digits", "vgg")
    top_left, top_right, bottom_left, bottom_right = figures[0].axes
    assert top_left.get_ylabel() == "Test accuracy (%)"
    assert bottom_left.get_ylabel() == "Validation accuracy (%)"
    assert (bottom_left.get_xlabel(), bottom_right.get_xlabel()) == ("Epoch", "Training time (s)")
    line = top_right.get_lines()[0]
    assert list(line.get_xdata()) == [2, 4, 6, 8, 10]
    assert line.get_ydata()[-1] == pytest.approx(80.5)  # the mean of the two turns
    assert len(top_left.collections) == 2  # a band for each method
    assert "2 turns" in figures[0].get_suptitle()
    colors = {line.get_color() for line in top_left.get_lines()}
    assert colors == {"#0072B2", "#D55E00"}
    assert [ax.get_title() for ax in figures[1].axes] == ["AL: associated loss", "AL: auto-encoder loss", "BP: loss"]
    assert len(figures[1].axes[0].get_lines()) == 4
    assert list(figures[2].axes[0].containers[0].lines[0].get_ydata()) == pytest.approx([77.5, 78.5, 79.5, 80.5])


def test_what_the_picture_of_early_exit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure) or path)
    make(tmp_path, "al", exits=[exits(1, 90.0), exits(2, 92.0)])
    make(tmp_path, "bp")
    pictures = draw(tmp_path, "digits", "vgg", ["al", "bp"])
    assert pictures[-1] == tmp_path / "digits_vgg_exits.png"
    left, right = figures[-1].axes
    curves = [line for line in left.get_lines() if len(line.get_xdata()) == 3]
    assert [list(line.get_xdata()) for line in curves] == [[40.0, 62.5, 100.0]] * 2
    assert list(curves[1].get_ydata()) == [87.0, 91.0, 92.0]
    assert list(left.containers[0].lines[0].get_ydata()) == [86.0, 91.0]
    assert [bar.get_width() for bar in right.containers[0]] == pytest.approx([70.0, 0.0])
    assert [bar.get_x() for bar in right.containers[1]] == pytest.approx([70.0, 0.0])
    assert "2 turns" in figures[-1].get_suptitle()


def test_what_is_not_ours_about_early_exit_is_not_drawn(tmp_path: Path) -> None:
    make(tmp_path, "al")
    path = tmp_path / "digits_vgg_al.json"
    for damage in (7, [{"turn": 1}], [exits() | {"curve": "steep"}]):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"early_exit": damage}))
        assert tmp_path / "digits_vgg_exits.png" not in draw(tmp_path, "digits", "vgg", ["al"])


def test_a_diverged_run_and_an_unfinished_turn_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, "al", turns=2, epochs=3, loss=math.inf)
    run(tmp_path, "bp", epochs=2, loss=math.nan)
    path = tmp_path / "digits_vgg_al.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    assert len(draw(tmp_path, "digits", "vgg")) == 3


def test_without_results_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert draw(tmp_path, "digits", "vgg") == []


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "turn,epoch,train_acc,val_acc,test_acc,train_time,loss\n", "\x00\xff"]
    + [f"turn,epoch,train_acc,val_acc,test_acc,train_time,loss\n{row}\n" for row in ("0,1,1,,1,1,1", "0,x,1,1,1,1,1")],
)
def test_a_file_that_is_not_ours_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "digits_vgg_bp.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        draw(tmp_path, "digits", "vgg")
    assert len(str(caught.value).splitlines()) == 1
    assert f"{path}: is not a file of results" in str(caught.value)


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run(tmp_path, "bp")
    (tmp_path / "digits_vgg_accuracy.png").mkdir()
    with pytest.raises(UsageError, match=r"digits_vgg_accuracy\.png: cannot be written \(Is a directory\)"):
        draw(tmp_path, "digits", "vgg")


def test_pyplot_is_not_touched(tmp_path: Path) -> None:
    run(tmp_path, "bp")
    before = set(sys.modules)
    draw(tmp_path, "digits", "vgg")
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_the_table_is_aligned_and_complete(tmp_path: Path) -> None:
    shown = comparison_table([run(tmp_path, "al", turns=2, epochs=3), run(tmp_path, "bp", turns=1)])
    lines = shown.splitlines()
    assert lines[0].split() == ["AL", "BP"]
    assert len({len(line) for line in lines}) == 1
    cells = {line[:31].strip(): line[31:].split("  ") for line in lines[2:]}
    values = {name: [cell.strip() for cell in row if cell.strip()] for name, row in cells.items()}
    assert values["test accuracy (%)"] == ["73.83 ± 0.71", "40.00"]
    assert values["epoch chosen on validation"] == ["3, 3", "1"]
    assert values["training time (s per turn)"] == ["6.00 ± 0.00", "2.00"]
    assert values["samples/s"] == ["5", "5"]
    assert values["parameters in training"] == ["1,234,567", "1,234,567"]
    assert values["parameters in inference"] == ["1,000", "1,000"]
    assert values["peak memory (MB)"] == ["321", "321"]


def test_the_table_of_many_methods_goes_on_below(tmp_path: Path) -> None:
    one = run(tmp_path, "al", turns=2, epochs=3)
    summaries = [replace(one, method=f"method_{number}", turns=number) for number in range(1, 8)]
    tables = comparison_table(summaries).split("\n\n")
    assert [table.split("\n")[0].split() for table in tables] == [
        ["method_1", "method_2", "method_3", "method_4"],
        ["method_5", "method_6", "method_7"],
    ]
    assert [table.split("\n")[-1].split() for table in tables] == [["turns", *"1234"], ["turns", *"567"]]
    assert max(len(line) for table in tables for line in table.split("\n")) <= WIDEST
    # A name that is wider than a line stands alone.
    assert len(comparison_table([replace(one, method=name * 130) for name in "ab"]).split("\n\n")) == 2


def test_the_table_of_many_turns_stays_narrow(tmp_path: Path) -> None:
    assert "3 to 3" not in comparison_table([run(tmp_path, "bp", turns=6, epochs=3)])


def test_seven_methods_are_told_apart_and_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards bugs: the legend hid the curves, the losses were a strip of 36 inches, the title was cut off."""
    methods = ["al", "bp", "ce", "scl", "predsim", "deinfo", "infopro"]
    for method in methods:
        own = {} if method in ("al", "bp") else {"losses": {"layer_0": ["loss"]}}
        run(tmp_path, method, epochs=2, layers=1, **own)
    figures: list[Figure] = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure) or path)
    draw(tmp_path, "digits", "vgg", methods)
    accuracy, losses, depth = figures
    assert [text.get_text() for text in accuracy.legends[0].get_texts()][:2] == ["AL", "BP"]
    assert len(accuracy.legends[0].get_texts()) == 8
    assert all(ax.get_legend() is None for ax in accuracy.axes)
    assert len(losses.axes) == 8
    assert losses.get_figwidth() < 20
    titled = depth.get_suptitle()
    assert titled == "digits, vgg: 6 local methods, accuracy by depth"
    assert len({line.get_color() for line in accuracy.axes[0].lines if line.get_marker() != "*"}) == 7


def test_a_method_has_one_style_in_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.objective("al")
    known = dict.fromkeys(("al", "ce", "scl"), entry)
    monkeypatch.setattr(registry, "_OBJECTIVES", known)
    everything = styles(["al", "bp", "ce", "scl", "unknown"])
    assert len(set(everything.values())) == 5
    for some in (["scl"], ["scl", "bp"], ["ce", "scl"], ["bp", "scl", "al"]):
        assert {name: styles(some)[name] for name in some} == {name: everything[name] for name in some}
    assert styles(["unknown"])["unknown"] == OTHERS[0]
    assert len({styles(list("abcdefghij"))[name].color for name in "abcdefg"}) == 7


def shown(out: Path, methods: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the titles of the panels of the picture of the losses."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(report, "_save", keep)
    draw(out, "digits", "vgg", methods)
    return [ax.get_title() for ax in figures[1].axes]


def test_a_panel_per_loss_named_by_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "other", layers=2)
    assert shown(tmp_path, ["other"], monkeypatch) == ["other: loss"]
    run(tmp_path, "al", loss_titles={"ae": "auto-encoder loss"})
    assert shown(tmp_path, ["al"], monkeypatch)[:2] == ["AL: assoc", "AL: auto-encoder loss"]


def test_an_earlier_result_is_shown_if_it_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = ["AL: associated loss", "AL: auto-encoder loss"]
    run(tmp_path, "bp", config={"lr": 1, "workers": 1})
    run(tmp_path, "al", config={"lr": 1, "workers": 2})
    assert shown(tmp_path, ["al"], monkeypatch) == [*losses, "BP: loss"]
    for other in ({"config": {"lr": 2}}, {"config": {"lr": 1}, "seeds": [1]}):
        run(tmp_path, "al", **other)
        assert shown(tmp_path, ["al"], monkeypatch) == losses
    run(tmp_path, "al", config={"lr": 1})
    for damage in ("", "{", "[]", "null", '{"config": 3}'):
        (tmp_path / "digits_vgg_bp.json").write_text(damage)
        assert shown(tmp_path, ["al"], monkeypatch) == losses
    assert shown(tmp_path, ["al", "bp"], monkeypatch) == [*losses, "BP: loss"], "its CSV is as good as ever"
