"""From documents to ids and lengths: lengths, vocabulary, cache, backends, plug-ins. No network, no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import DatasetEntry, register_dataset
from data.batches import Batches
from data.dataset import Split
from data.errors import DataError
from data.text import load as module
from data.text.load import trim
from data.text.source import Corpus, Source
from data.text.tokenization import resolve_backend
from tests.data.text.samples import WORDS, decode, load, row, write_csv


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


def test_a_wrong_name_lists_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="agnews, dbpedia, imdb, docstrings"):
        load("agnewz", tmp_path)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "ag_news_csv", "".join(row(1, "a", str(i)) for i in range(9)), row(1, "a", "b"), "World\n")
    with pytest.raises(DataError, match=r"agnews: has one class only \(World\); give it at least 2"):
        load("agnews", tmp_path)


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
def test_a_damaged_cache_is_built_again(agnews: Path, damage: str) -> None:
    first = load("agnews", agnews)
    (file,) = (agnews / ".cache").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes({"cut": whole[: len(whole) // 2], "flip": bytes(flipped), "empty": b""}[damage])
    again = load("agnews", agnews)
    assert torch.equal(first.train.inputs[0], again.train.inputs[0])
    assert file.read_bytes() == whole


def test_a_root_that_cannot_be_written_is_not_an_error(agnews: Path) -> None:
    (agnews / ".cache").write_text("a file where the folder should be")
    assert len(load("agnews", agnews).train) == 8
    assert sorted(path.name for path in agnews.iterdir()) == [".cache", "ag_news_csv"]


def test_a_batch_is_cut_to_its_longest_document(agnews: Path) -> None:
    tokens = torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]], dtype=torch.int32)
    split = Split((tokens, torch.tensor([2, 1])), torch.tensor([0, 1]), torch.tensor([0, 1]))
    (((out, lengths), _),) = Batches(split, 2, trim)
    assert out.tolist() == [[5, 6], [7, 0]]
    assert lengths.tolist() == [2, 1]
    assert (out.dtype, lengths.dtype) == (torch.int64, torch.int64)
    data = load("agnews", agnews)
    seen = sum(len(labels) for _, labels in Batches(data.train, 3, trim, seed=0))
    assert seen == 8


def test_trim_reads_nothing_from_the_device() -> None:
    """A tensor on "meta" has no values, so reading a length there, which on a GPU would wait, is an error."""
    split = Split((torch.ones(4, 9, dtype=torch.int32), torch.tensor([3, 1, 2, 5])), torch.arange(4), torch.arange(4))
    shapes = [tokens.shape for (tokens, _), _ in Batches(split, 2, trim, device="meta")]
    assert shapes == [(2, 3), (2, 5)]


TOPICS = ["fruit and trees", "cars and roads", "fruit again", "cars and cars"]


def write_topics(root: Path) -> Source:
    """The loader of a data set from outside the packages: it writes what it would download."""
    root.mkdir(exist_ok=True)
    file = root / "topics.txt"
    if not file.exists():
        file.write_text("\n".join(TOPICS * 3))

    def read() -> Corpus:
        documents = [(line, i % 2) for i, line in enumerate(file.read_text().splitlines())]
        return Corpus(["fruit", "cars"], documents[4:], documents[:4], ["topics: made up"])

    return Source(["topics", file], read)


@pytest.mark.usefixtures("forget_plugins")
def test_a_data_set_is_one_file_outside_the_packages(tmp_path: Path) -> None:
    register_dataset(DatasetEntry("topics", "text", "fruit or cars", write_topics, max_len=5))
    data = load("Topics", tmp_path / "root")
    assert (data.name, data.classes) == ("topics", ["fruit", "cars"])
    assert "topics: made up" in data.notes
    assert (len(data.train) + len(data.val), len(data.test)) == (8, 4)
    for position in range(4):
        assert decode(data, "test", position) == TOPICS[position].split()
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert [path.name.partition("-")[0] for path in (tmp_path / "root/.cache").iterdir()] == ["topics"]


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, r"its load function returned NoneType; expected data\.Source"),
        (Source([], lambda: Corpus(["a"], [("x", 0)], [("x", 0)])), "its source has an empty identity"),
        (Source([1], lambda: Corpus(["a"], [("x", 1)], [("x", 0)])), r"a label of the train set is outside 0\.\.0"),
    ],
)
def test_a_loader_that_returns_something_else_is_refused_with_what_is_expected(
    tmp_path: Path, found: Source | None, reason: str
) -> None:
    register_dataset(DatasetEntry("mine", "text", "mine", lambda root: found))
    with pytest.raises(DataError, match=reason) as caught:
        load("mine", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("forget_plugins")
def test_a_file_that_a_loader_of_the_users_cannot_read_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    register_dataset(DatasetEntry("mine", "text", "mine", lambda root: file.read_text()))
    with pytest.raises(
        DataError, match=r"mine: its data cannot be read \(.*No such file.*texts\.txt'\); restore the f"
    ):
        load("mine", tmp_path)
    file.write_bytes(b"caf\xe9 ")

    def source(_: Path) -> Source:
        return Source([file], lambda: Corpus(["a", "b"], [(file.read_text("utf-8"), 0)], [("x", 1)]))

    register_dataset(DatasetEntry("other", "text", "other", source))
    with pytest.raises(DataError, match=r"other: its data cannot be read \('utf-8' codec"):
        load("other", tmp_path)


def test_the_backend_is_in_the_notes(agnews: Path) -> None:
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
