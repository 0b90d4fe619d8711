"""The embedded text sample: real docstrings, labeled by package, the same on every run."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.dataset import Dataset
from data.errors import DataError
from data.text import docstrings as module
from data.text.docstrings import load
from data.text.load import load_text
from data.text.source import Corpus
from data.text.tokenization import basic_english


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("root")
    return load_text("Docstrings", root=root, max_len=64, min_len=1, vocab_size=5000, val_fraction=0.1, seed=0)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load(Path("unused")).read()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two small packages, `alphapkg` and `betapkg`, searched in place of the real ones, and a missing one."""
    shared = "This sentence about shared matters stands in both of the packages, word for word, and is dropped."
    for name, word in (("alphapkg", "apples"), ("betapkg", "bears")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text('raise RuntimeError("this package must never be imported")\n')
        for number in range(5):
            text = f"Tell torch what {word} number {number} do all day long in the np.garden behind our very old house."
            (folder / f"m{number}.py").write_text(
                f'"""{text}"""\ndef f():\n    """{shared}"""\n\nclass C:\n    "Short."\n'
            )
        (folder / "broken.py").write_text("def (:\n")
        (folder / "test_it.py").write_text(f'"""{"Only tests say this kind of thing at length. " * 3}"""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "PACKAGES", {"alphapkg": "a-dist", "absentpkg": "absent-dist", "betapkg": "b-dist"})
    yield tmp_path
    assert not {"alphapkg", "betapkg"} & set(sys.modules)


def test_real_packages_give_a_usable_data_set(real: Dataset) -> None:
    assert real.classes == ["matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch"]
    counts = Counter(real.train.labels.tolist())
    assert sorted(counts) == list(range(6))
    assert all(200 <= count <= 600 for count in counts.values())
    assert any("torch " in note for note in real.notes)


def test_the_test_split_is_a_fifth_of_each_class(real: Dataset) -> None:
    train, test = Counter(real.train.labels.tolist()), Counter(real.test.labels.tolist())
    for label in range(6):
        assert test[label] == pytest.approx(0.2 * (train[label] + test[label]), abs=0.51)


def test_no_package_is_named_in_any_text(corpus: Corpus) -> None:
    documents = [*corpus.train, *corpus.test]
    names = re.compile(r"torch|numpy|pandas|matplotlib|scipy|sklearn|scikit|\b(?:np|pd|plt|mpl|sp)\b", re.IGNORECASE)
    assert [text for text, _ in documents if names.search(text)] == []
    assert len({text for text, _ in documents}) == len(documents)


def test_two_readings_give_the_same_documents(real: Dataset, corpus: Corpus) -> None:
    documents = list(corpus.test)
    tokens, lengths = real.test.inputs
    ids = {token: number for number, token in enumerate(real.vocabulary)}
    for row, (text, _) in enumerate(documents):
        expected = [ids.get(token, 1) for token in basic_english(text)[:64]]
        assert tokens[row, : int(lengths[row])].tolist() == expected
    assert real.test.labels.tolist() == [label for _, label in documents]


@pytest.mark.usefixtures("packages")
def test_names_and_shared_texts_are_removed_and_absent_packages_are_noted() -> None:
    corpus = load(Path("unused")).read()
    train, test = list(corpus.train), list(corpus.test)
    assert corpus.classes == ["alphapkg", "betapkg"]
    assert Counter(label for _, label in train) == {0: 4, 1: 4}
    assert Counter(label for _, label in test) == {0: 1, 1: 1}
    for text, label in train + test:
        word = ("apples", "bears")[label]
        assert re.fullmatch(rf"Tell what {word} number \d do all day long in the \.garden behind our .*", text)
    assert any("no class for absent-dist" in note for note in corpus.notes)


@pytest.mark.usefixtures("packages")
def test_one_package_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", {"alphapkg": "a-dist", "absentpkg": "absent-dist"})
    with pytest.raises(DataError, match=r"fewer than 2 are installed.*pip install -r requirements.txt"):
        load(tmp_path)
