"""The index of a folder, and the command that writes all pages of folders again and compares them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from training.errors import UsageError
from training.report.__main__ import main
from training.report.html.compare import comparison
from training.report.html.index import index
from training.report.html.write import write_run
from training.report.results import read_folder

from .made import NASTY, make
from .reader import check


def test_the_index_has_every_run_and_leads_to_its_report(tmp_path: Path) -> None:
    make(tmp_path, "bp", dataset="imdb", model="lstm", finished=0, done=[2], turns=2)
    make(tmp_path, "al")
    make(tmp_path, "bp", turns=1)
    page = check(index(read_folder(tmp_path)))
    rows = page.tables["By data set and model"][1:]
    assert [(row.name, *row.cells) for row in rows] == [
        ("digits, vgg", "AL", "90.00 ± 0.00", "2", "3", "500", "2026-11-28 10:00 UTC", "finished"),
        ("digits, vgg", "BP", "90.00", "1", "3", "500", "2026-11-28 10:00 UTC", "finished"),
        ("imdb, lstm", "BP", "83.33", "2", "3", "500", "2026-11-28 10:00 UTC", "turn 1 of 2, epoch 2 of 3 so far"),
    ]
    assert {"./digits_vgg.html", "./imdb_lstm.html"} <= set(page.links)
    assert "2 runs, 1 of them not finished." in page.text


def test_files_that_are_not_ours_stop_nothing(tmp_path: Path) -> None:
    make(tmp_path, "al")
    good = (tmp_path / "digits_vgg_al.json").read_text()
    damaged = {
        "half": good[:200],
        "empty": "",
        "nan": good.replace("90.0", "NaN", 1),
        "deep": "[" * 100_000,
        "copy of digits_vgg_al": good,
        "no_such_types": '{"dataset": 1, "model": [], "method": null}',
        "digits_vgg_bp": good.replace('"method": "al"', '"method": "bp"').replace('"turns": 2', '"turns": "two"'),
        "digits_vgg_x": good.replace('"method": "al"', '"method": "x"').replace('"turns": 2', '"turns": 5'),
    }
    for name, text in damaged.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    (tmp_path / "._digits_vgg_al.json").write_bytes(b"\0")
    for name, content in {"trace": {"traceEvents": []}, "list": [1], "<b>": {"a": 1}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    page = check(index(read_folder(tmp_path)))
    for name in [*damaged, "folder", "latin"]:
        assert f"{name}.json :" in page.text, name
    assert "Other JSON files: <b>.json, list.json and trace.json." in page.text
    assert "turns: Input should be a valid integer" in page.text
    assert "holds what belongs in digits_vgg_al.json" in page.text
    assert "._" not in page.text
    assert page.row("digits, vgg")[0] == "AL"


def test_names_of_the_user_stay_texts(tmp_path: Path) -> None:
    name = NASTY.replace("/", "|").strip()
    out = tmp_path / "<i>&ü"
    out.mkdir()
    make(out, "al", dataset=name, model="m&m")
    for path in write_run(out, name, "m&m", ["al"]):
        page = check(path.read_text(encoding="utf-8"))
        assert name.replace("\x07", "\\x07") in page.text
    assert "Results in <i>&ü" in page.text
    assert page.links[-1].startswith("./%3Cscript%3E")


def test_a_page_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path, "al")
    home = tmp_path / "index.html"
    home.write_text("<html>my home page")
    with pytest.raises(UsageError, match=r"index\.html: was not written by this program"):
        write_run(tmp_path, "digits", "vgg", ["al"])
    assert home.read_text() == "<html>my home page"
    assert (tmp_path / "digits_vgg.html").exists()


def test_two_commands_in_one_folder_do_not_tear_a_page(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(model: str) -> None:
        try:
            for epochs in range(1, 6):
                make(tmp_path, "al", model=model, epochs=epochs, turns=1, layers=1)
                for path in write_run(tmp_path, "digits", model, ["al"]):
                    check(path.read_text(encoding="utf-8"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in ("vgg", "resnet")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name for path in tmp_path.glob("*.html")) == [
        "digits_resnet.html",
        "digits_vgg.html",
        "index.html",
    ]
    assert list(tmp_path.glob(".*")) == []


def test_one_folder_is_brought_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "al")
    make(tmp_path, "al", dataset="imdb", model="lstm")
    assert main([str(tmp_path)]) == 0
    names = ["digits_vgg.html", "imdb_lstm.html", "index.html"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    assert main([str(tmp_path)]) == 0  # our own pages are replaced


def test_several_folders_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one <&>", tmp_path / "two"
    for out, lr, base in ((one, 0.001, [90.0, 91.0, 92.0]), (two, 0.01, [92.0, 93.5, 94.0])):
        out.mkdir()
        make(out, "al", turns=3, base=base, config={"base_lr": lr, "outputpath": str(out)})
    make(one, "bp", dataset="imdb", model="lstm")
    monkeypatch.chdir(tmp_path)
    assert main(["one <&>", "two", "two/"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "comparison.html"
    page = check((tmp_path / "comparison.html").read_text())
    assert "AL in two is 2.17 percentage points above AL in one <&> on average" in page.text
    assert page.row("test accuracy (%)") == ["91.00 ± 1.00", "93.17 ± 1.04"]
    assert page.row("validation accuracy (%)") == ["90.00 ± 1.00", "92.17 ± 1.04"]
    assert page.row("base_lr") == ["0.001", "0.01"]
    assert [row.name for row in page.tables["What differs in their configurations"][1:]] == ["base_lr"]
    assert "./one%20%3C%26%3E/digits_vgg.html" in page.links
    assert all((tmp_path / name / "index.html").exists() for name in ("one <&>", "two"))
    assert main(["one <&>", "--out", "other.html"]) == 0
    check((tmp_path / "other.html").read_text())


def test_runs_with_other_numbers_of_turns_are_compared_by_the_seeds_of_both(tmp_path: Path) -> None:
    for name, base in (("one", [90.0, 80.0, 70.0]), ("two", [91.0])):
        (tmp_path / name).mkdir()
        make(tmp_path / name, "al", turns=len(base), base=base)
    folders = {name: read_folder(tmp_path / name) for name in ("one", "two")}
    text = check(comparison(folders, tmp_path)).text
    assert "AL in two is 1.00 percentage points above AL in one in the turn with the same seed." in text
    make(tmp_path / "two", "al", turns=2, base=[91.0, 82.0])
    text = check(comparison(folders | {"two": read_folder(tmp_path / "two")}, tmp_path)).text
    assert "1.50 percentage points above AL in one on average in the 2 turns with the same seeds" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "RESULT_DIR"),
        (["none"], "none: there is no such folder"),
        (["empty"], "empty: there are no results in it"),
        (["."], "there are no results in it; did you mean good?"),
        (["file"], "file: is a file; name the folder"),
        (["harmed"], "digits_vgg_al.json: cannot be read as results (is not JSON"),
        (["good", "none"], "none: there is no such folder"),
        (["good", "--out", "empty"], "empty: cannot be written (Is a directory)"),
        (["good", "--out", "file"], "file: was not written by this program"),
        (["good", "--out", "none/x.html"], "x.html: cannot be written"),
        (["good", "--bogus"], "unrecognized arguments: --bogus"),
        (["a\0b"], "cannot be the name"),
        (["x" * 5000], "cannot be the name"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("empty", "good", "harmed"):
        (tmp_path / name).mkdir()
    make(tmp_path / "good", "al")
    (tmp_path / "harmed" / "digits_vgg_al.json").write_text("{")
    (tmp_path / "file").write_text("text")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert expected in printed.err
