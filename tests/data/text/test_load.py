"""Text data sets, from small files in the official formats, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.batches import Batches
from data.dataset import Dataset
from data.errors import DataError
from data.text import load as module
from data.text.load import load_text, trim
from data.text.readers import clean
from data.text.tokenization import resolve_backend

SETTINGS: dict[str, Any] = {"max_len": 8, "min_len": 1, "vocab_size": 1000, "val_fraction": 0.2, "seed": 0}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def load(name: str, root: Path, **settings: Any) -> Dataset:
    return load_text(name, root=root, **{**SETTINGS, **settings})


def row(label: int, title: str, text: str) -> str:
    return ",".join('"' + str(field).replace('"', '""') + '"' for field in (label, title, text)) + "\n"


def write_csv(folder: Path, train: str, test: str, classes: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(train, encoding="utf-8", newline="")
    (folder / "test.csv").write_text(test, encoding="utf-8", newline="")
    if classes is not None:
        (folder / "classes.txt").write_text(classes)
    return folder


@pytest.fixture
def agnews(tmp_path: Path) -> Path:
    train = "".join(row(i % 4 + 1, f"Title {WORDS[i]}", f"Body of {WORDS[i]}, here.") for i in range(10))
    test = row(3, "A title", "unseen body") + row(4, "", "")
    write_csv(tmp_path / "ag_news_csv", train, test)
    return tmp_path


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    lines = [f'"Review {i} is<br /><br />not ""bad"".",{("negative", "positive")[i % 2]}\n' for i in range(20)]
    (tmp_path / "IMDB_Dataset.csv").write_text("review,sentiment\n" + "".join(lines) + lines[3] + lines[4])
    return tmp_path


def decode(data: Dataset, split: str, position: int) -> list[str]:
    (tokens, lengths), _ = getattr(data, split).rows(torch.tensor([position]))
    return [data.vocabulary[number] for number in tokens[0, : int(lengths)].tolist()]


def test_inputs_are_padded_ids_with_lengths(agnews: Path) -> None:
    data = load("AGnews", agnews)
    tokens, lengths = data.train.inputs
    assert data.name == "agnews"
    assert (tokens.dtype, lengths.dtype, data.train.labels.dtype) == (torch.int32, torch.int64, torch.int64)
    assert tokens.shape == (10, 8)
    assert data.vocabulary[:2] == ["<pad>", "<unk>"]
    for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        assert all(number > 0 for number in ids[:length])
        assert all(number == 0 for number in ids[length:])
    assert (len(data.train), len(data.val), len(data.test), len(data.probe)) == (8, 2, 2, 2)


def test_documents_are_cut_and_joined_from_title_and_text(agnews: Path) -> None:
    position = 0
    number = int(load("agnews", agnews).train.index[position])
    word = WORDS[number]
    assert decode(load("agnews", agnews), "train", position) == f"title {word} body of {word} , here .".split()
    assert decode(load("agnews", agnews, max_len=3), "train", position) == ["title", word, "body"]
    assert any("100.0 % of the training documents are longer" in n for n in load("agnews", agnews, max_len=3).notes)


def test_an_empty_document_is_one_unknown_token(agnews: Path) -> None:
    data = load("agnews", agnews)
    (tokens, lengths), labels = data.test.rows(torch.tensor([1]))
    assert tokens.tolist() == [[1] + [0] * 7]
    assert lengths.tolist() == [1]
    assert labels.tolist() == [3]
    assert any("1 documents without any token" in note for note in data.notes)


def test_the_vocabulary_sees_the_train_split_alone(agnews: Path) -> None:
    data = load("agnews", agnews)
    numbers = {i for i in range(10) if WORDS[i] in data.vocabulary}
    assert numbers == set(data.train.index.tolist())
    assert "unseen" not in data.vocabulary
    assert "<unk>" in decode(data, "val", 0)
    assert decode(data, "test", 0) == ["<unk>", "title", "<unk>", "body"]
    few = load("agnews", agnews, limit_train=4)
    assert {i for i in range(10) if WORDS[i] in few.vocabulary} == set(few.train.index.tolist())
    assert len(few.train) == 4


def test_the_vocabulary_is_the_most_frequent_words(agnews: Path) -> None:
    data = load("agnews", agnews, vocab_size=5)
    # Each word occurs once or twice in a document; equal counts are in lexicographic order.
    assert data.vocabulary == ["<pad>", "<unk>", ",", ".", "body"]


def test_short_training_documents_are_left_out_but_never_of_test(tmp_path: Path) -> None:
    train = "".join(row(1, "", " ".join(["word"] * n)) for n in (1, 2, 3, 4, 5, 6))
    write_csv(tmp_path / "ag_news_csv", train, row(1, "", "word") + row(2, "", "word word"))
    data = load("agnews", tmp_path, min_len=3)
    assert sorted(data.train.inputs[1].tolist()) == [3, 4, 5, 6]
    assert len(data.test) == 2
    assert any("2 training documents of fewer than min_len=3" in note for note in data.notes)
    with pytest.raises(DataError, match="no training document has min_len=9"):
        load("agnews", tmp_path, min_len=9)


def test_a_text_that_spells_a_special_is_not_padding(tmp_path: Path) -> None:
    lines = "".join(f"<pad> {i},positive\n" for i in range(10))
    (tmp_path / "IMDB_Dataset.csv").write_text("review,sentiment\n" + lines)
    data = load("imdb", tmp_path)
    assert (data.train.inputs[0][:, 0] == 1).all()
    assert data.vocabulary.count("<pad>") == 1


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
    assert any("its own split" in note for note in data.notes)
    bad = tmp_path / "aclImdb" / "test" / "pos" / "0_7.txt"
    bad.write_bytes(b"fine\ncaf\xe9")
    with pytest.raises(DataError, match=r"0_7\.txt line 2: not UTF-8"):
        load("imdb", tmp_path)
    for file in (tmp_path / "aclImdb" / "test" / "pos").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"pos: no \.txt reviews"):
        load("imdb", tmp_path)


GOOD = b'"1","a","b"\n'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD + b'"5","a","b"\n', "line 2: class '5'; expected a number from 1 to 4"),
        (GOOD + b'"0","a","b"\n', "line 2: class '0'"),
        (GOOD + b'"' + b"1" * 5000 + b'","a","b"\n', "line 2: class '1111"),
        ("\ufeff".join(["", '"1","a","b"\n']).encode("utf-16"), "line 1: "),
        (b"Class Index,Title,Description\n", "line 1: class 'Class Index'"),
        (GOOD + b'"1","a"\n', "line 2: 2 columns; expected 3"),
        (GOOD + b'"1","a","b","c"\n', "line 2: 4 columns; expected 3"),
        (GOOD + b'"1","a\x00","b"\n', "line 2: a NUL byte"),
        (GOOD + b'"1","caf\xe9","b"\n', "line 2: not UTF-8"),
        (GOOD + b'"1","a","the end is mis', "line 2: unexpected end of data"),
        (GOOD + b'"1","a"x,"b"\n', "line 2: "),
        (b"", "the train set holds no document"),
    ],
)
def test_a_damaged_csv_is_named_with_its_line(agnews: Path, content: bytes, reason: str) -> None:
    file = agnews / "ag_news_csv" / "train.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load("agnews", agnews)
    assert reason.startswith("the") or str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("text,label\na,positive\n", "line 1: columns 'text, label'; expected review,sentiment"),
        ("", "line 1: columns ''"),
        ("review,sentiment\na,positive\nb,mixed\n", "line 3: sentiment 'mixed'; expected positive or negative"),
        ("review,sentiment\na,b,positive\n", "line 2: 3 columns; expected 2"),
    ],
)
def test_a_damaged_imdb_csv_is_named_with_its_line(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "IMDB_Dataset.csv").write_text(content)
    with pytest.raises(DataError, match=reason):
        load("imdb", tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_class(agnews: Path) -> None:
    file = agnews / "ag_news_csv" / "train.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load("agnews", agnews).train) == 8


def test_one_file_of_two_is_not_mixed_with_a_download(agnews: Path) -> None:
    (agnews / "ag_news_csv" / "test.csv").unlink()
    with pytest.raises(DataError, match=r"test\.csv: not found"):
        load("agnews", agnews)


def test_absent_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(resource: Any, root: Path) -> None:
        assert (resource.name, root) == ("agnews", tmp_path)
        write_csv(root / "ag_news_csv", "".join(row(1, "a", str(i)) for i in range(5)), row(2, "a", "b"))

    monkeypatch.setattr("data.download.fetch", fetch)
    assert len(load("agnews", tmp_path).test) == 1


def test_absent_imdb_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"IMDB_Dataset\.csv") as caught:
        load("imdb", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_wrong_name_lists_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="agnews, dbpedia, imdb, docstrings"):
        load("agnewz", tmp_path)


def test_a_length_of_zero_is_refused(agnews: Path) -> None:
    with pytest.raises(DataError, match="max_len: got 0"):
        load("agnews", agnews, max_len=0)


def test_texts_are_tokenized_once_and_again_when_a_file_changes(agnews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = module._tokenize

    def counted(name: str, *rest: Any) -> Any:
        calls.append(name)
        return real(name, *rest)

    monkeypatch.setattr(module, "_tokenize", counted)
    first = load("agnews", agnews)
    again = load("agnews", agnews)
    load("agnews", agnews, max_len=4, seed=5, vocab_size=9)
    assert calls == ["agnews"]
    assert first.vocabulary == again.vocabulary
    assert torch.equal(first.train.inputs[0], again.train.inputs[0])
    file = agnews / "ag_news_csv" / "test.csv"
    file.write_text(file.read_text().replace("unseen", "Title!"))  # of the same length
    assert decode(load("agnews", agnews), "test", 0)[2:] == ["title", "<unk>", "body"]
    assert calls == ["agnews", "agnews"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_is_made_anew(agnews: Path, damage: str) -> None:
    first = load("agnews", agnews)
    (file,) = (agnews / ".cache").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes({"cut": whole[: len(whole) // 2], "flip": bytes(flipped), "empty": b""}[damage])
    again = load("agnews", agnews)
    assert torch.equal(first.train.inputs[0], again.train.inputs[0])
    assert file.read_bytes() == whole


def test_a_root_that_cannot_be_written_is_no_failure(agnews: Path) -> None:
    (agnews / ".cache").write_text("a file where the folder should be")
    assert len(load("agnews", agnews).train) == 8
    assert sorted(path.name for path in agnews.iterdir()) == [".cache", "ag_news_csv"]


def test_trim_cuts_a_batch_to_its_longest_document(agnews: Path) -> None:
    tokens = torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]], dtype=torch.int32)
    out, lengths = trim((tokens, torch.tensor([2, 1])), None)
    assert out.tolist() == [[5, 6], [7, 0]]
    assert (out.dtype, lengths.dtype) == (torch.int64, torch.int64)
    data = load("agnews", agnews)
    seen = sum(len(labels) for _, labels in Batches(data.train, 3, trim, seed=0))
    assert seen == 8


def test_the_backend_is_told(agnews: Path) -> None:
    data = load("agnews", agnews, backend="builtin")
    assert data.notes[0].startswith("text backend: built-in")


@pytest.mark.torchtext
@pytest.mark.parametrize("name", ["agnews", "imdb"])
def test_torchtext_gives_the_identical_data_set(name: str, request: pytest.FixtureRequest) -> None:
    try:
        resolve_backend("torchtext")
    except DataError as error:
        pytest.skip(str(error))
    root = request.getfixturevalue(name)
    ours, theirs = load(name, root, backend="builtin"), load(name, root, backend="torchtext")
    assert theirs.notes[0].startswith("text backend: torchtext")
    assert ours.vocabulary == theirs.vocabulary
    for split in ("train", "val", "test"):
        mine, other = getattr(ours, split), getattr(theirs, split)
        assert torch.equal(mine.index, other.index)
        assert torch.equal(mine.labels, other.labels)
        assert all(np.array_equal(a, b) for a, b in zip(mine.inputs, other.inputs, strict=True))
