"""IMDb as a csv file and as folders, good and bad. No network, no GPU."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from data.errors import DataError
from tests.data.text.samples import decode, load


def test_imdb_csv_is_split_in_half_the_same_way_for_every_seed(imdb: Path) -> None:
    data, other = load("imdb", imdb), load("imdb", imdb, seed=1)
    assert data.classes == ["negative", "positive"]
    assert (len(data.test), len(data.train) + len(data.val)) == (10, 10)
    assert any("2 repeated reviews removed, 20 of 22 kept" in note for note in data.notes)
    assert any("10 reviews drawn with the constant seed 0 are test" in note for note in data.notes)
    assert torch.equal(data.test.labels, other.test.labels)
    assert not torch.equal(data.train.index, other.train.index)
    words = decode(data, "train", 0)
    assert words[0] == "review"
    assert words[2:] == ["is", "not", "bad", "."]
    assert int(words[1]) % 2 == int(data.train.labels[data.train.index[0]])


def test_a_review_with_both_labels_is_left_out(imdb: Path) -> None:
    file = imdb / "IMDB_Dataset.csv"
    file.write_text(file.read_text() + "unclear one,positive\nunclear one,negative\nunclear one,negative\n")
    data = load("imdb", imdb)
    assert (len(data.test), len(data.train) + len(data.val)) == (10, 10)
    assert "unclear" not in data.vocabulary
    assert "imdb: 2 repeated reviews removed, 20 of 25 kept" in data.notes
    assert "imdb: left out: 1 review with both labels, 3 rows in all" in data.notes


def test_imdb_csv_may_have_a_space_in_its_name(imdb: Path) -> None:
    (imdb / "IMDB_Dataset.csv").rename(imdb / "IMDB Dataset.csv")
    assert len(load("IMDb", imdb).test) == 10


def test_imdb_folders_keep_their_own_split(tmp_path: Path) -> None:
    for part, n in (("train", 6), ("test", 2)):
        for label in ("pos", "neg"):
            folder = tmp_path / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(n):
                (folder / f"{i}_7.txt").write_text(f"{part} {label}\nwas<br />seen")
    data = load("imdb", tmp_path)
    assert (len(data.train) + len(data.val), len(data.test)) == (12, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert decode(data, "train", 0)[2:] == ["was", "seen"]
    assert any("their own split" in note for note in data.notes)
    bad = tmp_path / "aclImdb" / "test" / "pos" / "0_7.txt"
    bad.write_bytes(b"fine\ncaf\xe9")
    with pytest.raises(DataError, match=r"0_7\.txt line 2: not UTF-8"):
        load("imdb", tmp_path)
    for file in (tmp_path / "aclImdb" / "test" / "pos").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"pos: no \.txt reviews"):
        load("imdb", tmp_path)


def write_folders(folder: Path, n: int = 6) -> Path:
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            (folder / part / label).mkdir(parents=True)
            for i in range(n):
                (folder / part / label / f"{i}_7.txt").write_text(f"{part} {label} {i}")
    return folder


def test_what_is_no_review_is_left_out_of_the_folders_with_a_count(tmp_path: Path) -> None:
    reviews = write_folders(tmp_path / "aclImdb") / "train" / "pos"
    (reviews / "6_8.TXT").write_bytes(b"\xef\xbb\xbfmarked review\r\n")
    for name in ("._0_7.txt", ".DS_Store", "Thumbs.db", "notes.md"):
        (reviews / name).write_bytes(b"\x00\x01")
    (reviews / "folder.txt").mkdir()
    data = load("imdb", tmp_path)
    assert len(data.train) + len(data.val) == 13
    assert "imdb: not read, as not .txt: 2 files" in data.notes
    assert any("imdb: 3 files that an operating system or editor left (" in note for note in data.notes)
    assert not any("\ufeff" in word for word in data.vocabulary)
    (reviews / "notes.md").unlink()
    assert "imdb: not read, as not .txt: 1 file" in load("imdb", tmp_path).notes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"404: Not Found", r"0_7\.txt: holds a server's answer"),
        ("A review".encode("utf-16"), r"0_7\.txt: is UTF-16"),
    ],
)
def test_a_file_that_is_no_review_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (write_folders(tmp_path / "aclImdb") / "test" / "neg" / "0_7.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load("imdb", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("review;sentiment\na;positive\n", r"IMDB_Dataset\.csv: its columns are separated by semicolons"),
        ("review\tsentiment\na, b\tpositive\n", r"IMDB_Dataset\.csv: its columns are separated by tabs"),
        ("404: Not Found", r"IMDB_Dataset\.csv: holds a server's answer"),
        ("text,label\na,positive\n", "line 1: columns 'text, label'; expected review,sentiment"),
        ("", "line 1: columns ''"),
        ("review,Review,sentiment\na,b,positive\n", "line 1: two columns are called review; rename or remove one"),
        ("review,sentiment\na,positive\nb,mixed\n", "line 3: sentiment 'mixed'; expected positive or negative"),
        ("review,sentiment\na,b,positive\n", "line 2: 3 columns; expected 2"),
    ],
)
def test_a_damaged_imdb_csv_is_named_with_its_line(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "IMDB_Dataset.csv").write_text(content)
    with pytest.raises(DataError, match=reason):
        load("imdb", tmp_path)


def test_missing_imdb_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"IMDB_Dataset\.csv") as caught:
        load("imdb", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_csv_may_lie_in_a_folder(imdb: Path) -> None:
    file = imdb / "IMDB_Dataset.csv"
    content = file.read_bytes()
    file.unlink()
    for folder in ("IMDB Dataset.csv", "imdb"):
        (imdb / folder).mkdir()
        (imdb / folder / "IMDB Dataset.csv").write_bytes(content)
        data = load("imdb", imdb)
        assert len(data.test) == 10
        assert f"imdb: read from {imdb / folder / 'IMDB Dataset.csv'}; its usual place is {imdb}" in data.notes
        shutil.rmtree(imdb / folder)


@pytest.mark.parametrize("place", ["aclImdb/aclImdb", "aclImdb_v1/aclImdb", "aclImdb/unpacked"])
def test_the_folders_may_lie_deeper(tmp_path: Path, place: str) -> None:
    write_folders(tmp_path / place)
    data = load("imdb", tmp_path)
    assert (len(data.train) + len(data.val), len(data.test)) == (12, 12)
    assert f"imdb: read from {tmp_path / place}; its usual place is {tmp_path / 'aclImdb'}" in data.notes


def test_the_root_may_be_the_folder_of_reviews(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "aclImdb")
    data = load("imdb", root)
    assert len(data.test) == 12
    assert any(f"read from {root}; its usual place is" in note for note in data.notes)


@pytest.mark.parametrize(
    "name", ["IMDB_Dataset.csv.zip", "IMDB Dataset.csv.zip", "imdb-dataset-of-50k-movie-reviews.zip"]
)
@pytest.mark.parametrize("inside", ["IMDB Dataset.csv", "archive/IMDB_Dataset.csv"])
def test_the_packed_csv_is_unpacked(imdb: Path, name: str, inside: str) -> None:
    file = imdb / "IMDB_Dataset.csv"
    with zipfile.ZipFile(imdb / name, "w") as packed:
        packed.write(file, inside)
    file.unlink()
    assert len(load("imdb", imdb).test) == 10


@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "aclImdb_v1.tgz", "aclImdb.tar"])
def test_the_packed_folders_are_unpacked(tmp_path: Path, name: str) -> None:
    folder = write_folders(tmp_path / "elsewhere" / "deep" / "aclImdb")
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / name, "w" if name.endswith(".tar") else "w:gz") as packed:
        packed.add(folder, "aclImdb")
    assert len(load("imdb", root).test) == 12


def test_folders_beside_those_of_the_two_classes_are_named(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "aclImdb")
    for name in ("unsup", "neutral"):
        (folder / "train" / name).mkdir()
    (folder / "train/urls_pos.txt").write_text("an official list, not worth a word")
    notes = load("imdb", tmp_path).notes
    assert "imdb: folders beside neg/ and pos/ not read: train/neutral, train/unsup" in notes
