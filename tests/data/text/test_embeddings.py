"""Word vectors: the look-up against golden facts, rows aligned with ids, notes, damaged files, the cache."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import DataError
from data.text import embeddings
from data.text.embeddings import get_vectors, load_vectors
from data.text.tokenization import resolve_backend

FACTS = json.loads((Path(__file__).parents[2] / "golden" / "torchtext" / "vectors.json").read_text())
VOCABULARY = ["<pad>", "<unk>", "market", "the", "zyzzyva", "oil"]


@pytest.fixture(params=["builtin", pytest.param("torchtext", marks=pytest.mark.torchtext)])
def backend(request: pytest.FixtureRequest) -> str:
    try:
        return resolve_backend(request.param).name
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "glove.6B.5d.txt").write_text("\n".join(FACTS["file"]) + "\n")
    return tmp_path


def row_of(word: str) -> torch.Tensor:
    line = next(line for line in FACTS["file"] if line.startswith(f"{word} "))
    return torch.tensor([float(value) for value in line.split()[1:]])


@pytest.mark.parametrize(("facts", "backup"), [("get_vecs_by_tokens", False), ("lower_case_backup", True)])
def test_look_up_equals_the_golden_one(root: Path, backend: str, facts: str, backup: bool) -> None:
    path = root / "glove.6B.5d.txt"
    found = get_vectors(FACTS["query"], path, 5, lower_case_backup=backup, backend=backend)
    assert torch.equal(found, torch.tensor(FACTS[facts]))


def test_look_up_of_missing_words_is_zero(root: Path, backend: str) -> None:
    found = get_vectors(["zyzzyva"], root / "glove.6B.5d.txt", 5, backend=backend)
    assert torch.equal(found, torch.zeros(1, 5))


def test_if_a_word_is_repeated_its_last_line_counts(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("a 1 2\nb 3 4\na 5 6\n")
    assert get_vectors(["a", "b"], path, 2, backend=backend).tolist() == [[5.0, 6.0], [3.0, 4.0]]


def test_repeated_words_are_counted(tmp_path: Path) -> None:
    (tmp_path / "glove.6B.2d.txt").write_text("a 1 2\nb 3 4\na 5 6\na 7 8\nunwanted 1 1\nunwanted 1 1\n")
    vectors, notes = load_vectors(["a", "b"], 2, root=tmp_path, seed=0)
    assert vectors.tolist() == [[7.0, 8.0], [3.0, 4.0]]
    assert "2 lines of " in notes[1]
    assert "repeat a word; the last line of each word counts" in notes[1]


def test_each_row_belongs_to_its_id(root: Path, backend: str) -> None:
    vectors, _ = load_vectors(VOCABULARY, 5, root=root, seed=0, backend=backend)
    assert vectors.shape == (6, 5)
    assert vectors.dtype == torch.float32
    for word in ("the", "market", "oil"):
        assert torch.equal(vectors[VOCABULARY.index(word)], row_of(word))
    assert torch.equal(vectors[VOCABULARY.index("<pad>")], torch.zeros(5))


def test_words_that_are_not_found_are_drawn_by_seed_at_the_scale_of_the_found(root: Path, backend: str) -> None:
    many = [*VOCABULARY, *(f"no-such-word-{i}" for i in range(4000))]
    first, _ = load_vectors(many, 5, root=root, seed=0, backend=backend)
    again, _ = load_vectors(many, 5, root=root, seed=0, backend=backend)
    other, _ = load_vectors(many, 5, root=root, seed=1, backend=backend)
    known = torch.stack([row_of(word) for word in ("the", "market", "oil")])
    assert torch.equal(first, again)
    assert torch.equal(first[3], other[3])
    assert not torch.equal(first[1], other[1])
    assert first[1].abs().sum() > 0
    assert float(first[6:].std()) == pytest.approx(float(known.std(correction=0)), rel=0.05)


def test_the_note_states_the_coverage(root: Path) -> None:
    _, notes = load_vectors(VOCABULARY, 5, root=root, seed=0)
    assert len(notes) == 1
    assert "3 of 4 words of the vocabulary (75.0 %)" in notes[0]
    assert "glove.6B.5d.txt" in notes[0]


def test_the_file_may_lie_in_its_own_folder(root: Path) -> None:
    (root / "glove.6B").mkdir()
    (root / "glove.6B.5d.txt").rename(root / "glove.6B" / "glove.6B.5d.txt")
    vectors, _ = load_vectors(VOCABULARY, 5, root=root, seed=0)
    assert torch.equal(vectors[3], row_of("the"))


def test_without_the_file_the_note_says_what_to_put_where(tmp_path: Path) -> None:
    vectors, notes = load_vectors(VOCABULARY, 50, root=tmp_path, seed=3)
    again, _ = load_vectors(VOCABULARY, 50, root=tmp_path, seed=3)
    assert len(notes) == 1
    assert f"glove.6B.50d.txt in {tmp_path}" in notes[0]
    assert f"python -m data.download glove --data-root {tmp_path}" in notes[0]
    assert torch.equal(vectors, again)
    assert vectors[0].abs().sum() == 0
    assert 0.2 < float(vectors[1:].std()) < 0.6


def test_a_file_with_none_of_the_words_is_not_an_error(root: Path, backend: str) -> None:
    vectors, notes = load_vectors(["<pad>", "<unk>", "zyzzyva"], 5, root=root, seed=0, backend=backend)
    assert torch.isfinite(vectors).all()
    assert "0 of 1 words" in notes[0]


@pytest.mark.parametrize(
    ("second_line", "reason"),
    [
        ("oil 1 2 3 4", "line 2: 4 numbers; expected 5"),
        ("oil 1 2 3 4 5 6", "line 2: 6 numbers; expected 5"),
        ("oil", "line 2: 0 numbers; expected 5"),
        ("oil 1 2 x 4 5", "line 2: not all values are finite numbers"),
        ("unwanted 1 2 x 4 5", "line 2: not all values are finite numbers"),
        ("oil 1 2 nan 4 5", "line 2: not all values are finite numbers"),
        ("unwanted 1 2 inf 4 5", "line 2: not all values are finite numbers"),
        ("oil 1 2 1e99 4 5", "line 2: not all values are finite numbers"),
        ("oil 1 2 1.2.3 4 5", "line 2: not all values are finite numbers"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, second_line: str, reason: str) -> None:
    path = tmp_path / "glove.6B.5d.txt"
    path.write_text(f"the 1 2 3 4 5\n{second_line}\n")
    with pytest.raises(DataError, match=reason) as caught:
        load_vectors(VOCABULARY, 5, root=tmp_path, seed=0)
    assert str(path) in str(caught.value)


def test_a_word2vec_header_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "glove.6B.3d.txt"
    path.write_text("1 3\nthe 1 2 3\n")
    assert get_vectors(["the", "1"], path, 3).tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]


def test_the_file_is_read_once_and_again_when_it_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch, counted: Callable[..., list[int]]
) -> None:
    calls = counted(monkeypatch, embeddings, "read_vectors")
    first, _ = load_vectors(VOCABULARY, 5, root=root, seed=0)
    second, _ = load_vectors(VOCABULARY, 5, root=root, seed=1)
    assert len(calls) == 1
    assert torch.equal(first[3], second[3])
    path = root / "glove.6B.5d.txt"
    path.write_text(path.read_text().replace("-0.74932", "+0.74932"))  # of the same length
    changed, _ = load_vectors(VOCABULARY, 5, root=root, seed=0)
    assert len(calls) == 2
    assert float(changed[3, 0]) == np.float32(0.74932)


@pytest.fixture
def counted() -> Callable[..., list[int]]:
    def install(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[int]:
        calls: list[int] = []
        real = getattr(module, name)

        def wrapper(*arguments: object) -> object:
            calls.append(1)
            return real(*arguments)

        monkeypatch.setattr(module, name, wrapper)
        return calls

    return install


@pytest.mark.torchtext
def test_torchtext_gives_the_same_matrix_quietly_and_leaves_https_checked(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchtext", reason="torchtext is not installed", exc_type=ImportError)
    before = ssl._create_default_https_context
    ours, _ = load_vectors(VOCABULARY, 5, root=root, seed=0, backend="builtin")
    theirs, _ = load_vectors(VOCABULARY, 5, root=root, seed=0, backend="torchtext")
    assert torch.equal(ours, theirs)
    assert ssl._create_default_https_context is before
    assert capsys.readouterr() == ("", "")


def test_padding_is_zero_even_if_the_file_has_a_word_of_its_name(tmp_path: Path, backend: str) -> None:
    (tmp_path / "own.txt").write_text("<pad> 1 2 3\n<unk> 4 5 6\nthe 7 8 9\n")
    rows, notes = load_vectors(
        ["<pad>", "<unk>", "the"], 3, root=tmp_path, seed=0, backend=backend, model=str(tmp_path / "own.txt")
    )
    assert rows.tolist() == [[0, 0, 0], [4, 5, 6], [7, 8, 9]]
    assert "N(0, 1.708)" in notes[0]  # of 4 to 9
