"""AG News and DBpedia: their csv files, good and bad, and what is cleaned out of them. No network, no GPU."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import DataError
from data.text.class_csv import clean
from tests.data.text.samples import WORDS, decode, load, row, write_csv


def test_class_names_are_the_files_own_where_it_has_them(tmp_path: Path, agnews: Path) -> None:
    assert load("agnews", agnews).classes == ["World", "Sports", "Business", "Sci/Tech"]
    (agnews / "ag_news_csv" / "classes.txt").write_text("a\nb\nc\nd\n\n")
    assert load("agnews", agnews).classes == ["a", "b", "c", "d"]
    train = "".join(row(14, "Book", f"text {i}") for i in range(5))
    write_csv(tmp_path / "dbpedia_csv", train, row(14, "Book", "text"))
    data = load("dbpedia", tmp_path)
    assert data.classes[13] == "WrittenWork"
    assert set(data.train.labels.tolist()) == {13}


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (r"fined \$1.35 Million", "fined $1.35 Million"),
        (r"Wall Street's dwindling\band of", "Wall Street's dwindling band of"),
        (r"end.\\Next", "end.  Next"),
        ("Messier #39;s lawyer", "Messier's lawyer"),
        (" quot;I am quot; he", '"I am" he'),
        ("AT amp;T and S&amp;P", "AT&T and S&P"),
        ("costs  #36;5", "costs $5"),
        ("rate &lt;b&gt;...&lt;/b&gt; TORONTO", "rate  ...  TORONTO"),
        (" lt;b gt;bold", " bold"),
        ("caf&eacute; &#233;", "café é"),
        ("Shares Rise; R&B; 3 < 4 > 2", "Shares Rise; R&B; 3 < 4 > 2"),
    ],
)
def test_known_artifacts_are_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


GOOD = b'"1","a","b"\n'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD + b'"5","a","b"\n', "line 2: class '5'; expected a number from 1 to 4"),
        (GOOD + b'"0","a","b"\n', "line 2: class '0'"),
        (GOOD + b'"' + b"1" * 5000 + b'","a","b"\n', "line 2: class '1111"),
        ('"1","a","b"\n'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"404: Not Found", r"holds a server's answer \('404: Not Found'\)"),
        (b"<!DOCTYPE html><html>", "holds a web page"),
        (b'1;"a";"b"\n', "columns are separated by semicolons"),
        (b"1\ta\tb, c\n", "columns are separated by tabs"),
        (b"Class Index,Title,Description\n", "the train set has no documents"),
        (b"Class Index,Description,Title\n", "line 1: class 'Class Index'"),
        (GOOD + b"Class Index,Title,Description\n", "line 2: class 'Class Index'"),
        (GOOD + b'"1","a"\n', "line 2: 2 columns; expected 3"),
        (GOOD + b'"1","a","b","c"\n', "line 2: 4 columns; expected 3"),
        (GOOD + b'"1","a\x00","b"\n', "line 2: a NUL byte"),
        (GOOD + b'"1","caf\xe9","b"\n', "line 2: not UTF-8"),
        (GOOD + b'"1","a","the end is mis', "line 2: unexpected end of data"),
        (GOOD + b'"1","a"x,"b"\n', "line 2: "),
        (b"", "the train set has no documents"),
    ],
)
def test_a_damaged_csv_is_named_with_its_line(agnews: Path, content: bytes, reason: str) -> None:
    file = agnews / "ag_news_csv" / "train.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load("agnews", agnews)
    assert reason.startswith("the train") or str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_class(agnews: Path) -> None:
    file = agnews / "ag_news_csv" / "train.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load("agnews", agnews).train) == 8


@pytest.mark.parametrize("header", ["Class Index,Title,Description", '"label","title","content"', "class_id,NAME,Text"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_header_line_is_skipped_and_noted(agnews: Path, header: str, end: str) -> None:
    plain = load("agnews", agnews)
    for part in ("train", "test"):
        file = agnews / "ag_news_csv" / f"{part}.csv"
        text = f"{header}\n{file.read_text()}".replace("\n", end)
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = load("agnews", agnews)
    assert torch.equal(data.train.labels, plain.train.labels)
    assert torch.equal(data.train.inputs[0], plain.train.inputs[0])
    shown = header.replace('"', "").replace(",", ", ")
    for part in ("train", "test"):
        assert f"agnews: the first line of {part}.csv is a header ({shown}) and was skipped" in data.notes


def test_a_row_that_looks_like_a_header_is_data(agnews: Path) -> None:
    file = agnews / "ag_news_csv" / "test.csv"
    file.write_text('"1","Title","Description"\n' + file.read_text())
    data = load("agnews", agnews)
    assert len(data.test) == 3
    assert not any("header" in note for note in data.notes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"classes\.txt: names no class"),
        (b"\xef\xbb\xbf\r\n \r\n", r"classes\.txt: names no class"),
        (b"404: Not Found", r"classes\.txt: holds a server's answer"),
        ("World\n".encode("utf-16"), r"classes\.txt: is UTF-16"),
        (
            b"World\nSports\n",
            r"train\.csv line 3: class '3'; expected a number from 1 to 2, as .*classes\.txt names them",
        ),
    ],
)
def test_damaged_class_names_are_named(agnews: Path, content: bytes, reason: str) -> None:
    (agnews / "ag_news_csv" / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load("agnews", agnews)


def test_a_mark_and_line_ends_are_no_part_of_a_class_name(agnews: Path) -> None:
    (agnews / "ag_news_csv" / "classes.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\nc\r\nd\r\n")
    assert load("agnews", agnews).classes == ["a", "b", "c", "d"]


def test_what_an_operating_system_left_is_counted(agnews: Path) -> None:
    for name in ("._train.csv", ".DS_Store"):
        (agnews / "ag_news_csv" / name).write_bytes(b"\0")
    notes = load("agnews", agnews).notes
    assert any("agnews: 2 files that an operating system or editor left (" in note for note in notes)


def test_each_file_may_lie_in_a_folder_of_its_name(agnews: Path) -> None:
    plain = load("agnews", agnews)
    for name in ("train.csv", "test.csv"):
        file = agnews / "ag_news_csv" / name
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        (file / name).write_bytes(content)
    assert torch.equal(load("agnews", agnews).train.inputs[0], plain.train.inputs[0])


def test_one_file_of_two_is_not_mixed_with_a_download(agnews: Path) -> None:
    (agnews / "ag_news_csv" / "test.csv").unlink()
    with pytest.raises(DataError, match=r"test\.csv: not found"):
        load("agnews", agnews)


def test_absent_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(resource: Any, root: Path) -> Path:
        assert (resource.name, root) == ("agnews", tmp_path)
        return write_csv(root / "ag_news_csv", "".join(row(1, "a", str(i)) for i in range(5)), row(2, "a", "b"))

    monkeypatch.setattr("data.download.fetch", fetch)
    assert len(load("agnews", tmp_path).test) == 1


def test_documents_are_cut_and_joined_from_title_and_text(agnews: Path) -> None:
    position = 0
    number = int(load("agnews", agnews).train.index[position])
    word = WORDS[number]
    assert decode(load("agnews", agnews), "train", position) == f"title {word} body of {word} , here .".split()
    assert decode(load("agnews", agnews, max_len=3), "train", position) == ["title", word, "body"]
    assert any("100.0 % of the training documents are longer" in n for n in load("agnews", agnews, max_len=3).notes)


@pytest.mark.parametrize("name", ["agnews", "dbpedia"])
def test_the_folder_may_lie_deeper_or_be_the_root_itself(tmp_path: Path, name: str) -> None:
    folder = "ag_news_csv" if name == "agnews" else "dbpedia_csv"
    train = "".join(row(1, "a", str(i)) for i in range(5))
    place = write_csv(tmp_path / folder / folder, train, row(2, "a", "b"))
    data = load(name, tmp_path)
    assert len(data.train) == 4
    assert f"{name}: read from {place}; its usual place is {tmp_path / folder}" in data.notes
    assert any(f"{name}: read from {place};" in note for note in load(name, place).notes)
    shutil.rmtree(tmp_path / folder)
    write_csv(tmp_path / folder, train, row(2, "a", "b"))
    assert not any("read from" in note for note in load(name, tmp_path).notes)


@pytest.mark.parametrize("name", ["ag_news_csv.zip", "ag-news-classification-dataset.zip"])
@pytest.mark.parametrize("inside", ["ag_news_csv/", ""])
def test_an_archive_is_unpacked(agnews: Path, name: str, inside: str) -> None:
    with zipfile.ZipFile(agnews / name, "w") as packed:
        for file in (agnews / "ag_news_csv").iterdir():
            packed.write(file, f"{inside}{file.name}")
    shutil.rmtree(agnews / "ag_news_csv")
    assert len(load("agnews", agnews).train) == 8
